from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import block_label, write_scan
from made_pairs import GRID, RULE, block_pairs, column_label

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import fit_normaliser
from fsmis_components.evaluation.decision_pictures import choose_pairs
from fsmis_components.evaluation.decision_pictures.slice_pair import dice
from fsmis_components.support import load_support_set


@pytest.mark.parametrize(
    ("extent", "number", "chosen", "section", "answering"),
    [
        ((2, 10), None, 6, 1, 5),  # its middle third is 5, 6, 7; the support's middle slice is 5
        ((2, 10), 3, 3, 0, 4),
        ((2, 10), 10, 10, 2, 6),
        ((4, 5), None, 5, 2, 6),  # two slices have no middle third
    ],
)
def test_the_third_of_the_query_chooses_the_support_slice(
    tmp_path: Path, extent: tuple[int, int], number: int | None, chosen: int, section: int,
    answering: int,
) -> None:  # fmt: skip
    write_scan(tmp_path, 1, column_label(4, 6))
    image = write_scan(tmp_path, 2, column_label(*extent))
    support = load_support_set(tmp_path, support_ids=[1])
    case = find_cases(tmp_path)[1]
    assert case.image == image
    (pair,) = choose_pairs(support, case, GRID, RULE, number)
    assert (pair.query.number, pair.section, pair.support.number) == (chosen, section, answering)
    assert (pair.query.case, pair.support.case) == ("2", "1")


def test_slices_are_what_the_network_sees(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    normalise = fit_normaliser(pair.view.volume, RULE)
    own = normalise(SliceView(pair.view.volume, GRID).slices(6, 7))
    assert torch.equal(pair.query.image, own)
    assert pair.query.mask.shape == (1, 1, 24, 20)
    block = torch.zeros(24, 20)
    block[4:12, 4:10] = 1
    assert torch.equal(pair.query.mask[0, 0], block) and torch.equal(
        torch.from_numpy(pair.truth).float(), block
    )


def test_structures_that_the_query_lacks_are_left_out(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2, block_label({2: 2}))
    support = load_support_set(tmp_path, support_ids=[1])
    pairs = choose_pairs(support, find_cases(tmp_path)[1], GRID, RULE)
    assert [pair.structure.value for pair in pairs] == [2]


@pytest.mark.parametrize(
    ("label", "number", "sentence"),
    [
        (block_label({2: 3}), None, r"nothing of structure_1 \(1\), structure_2 \(2\) there"),
        (block_label(), 0, "there at slice 1"),
        (block_label(), 12, "has the slices 1 to 12, not 13"),
        (None, None, "none was found beside it"),
    ],
)
def test_rejects(tmp_path: Path, label: object, number: int | None, sentence: str) -> None:
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2, label)  # type: ignore[arg-type]
    support = load_support_set(tmp_path, support_ids=[1])
    with pytest.raises(DataError, match=sentence):
        choose_pairs(support, find_cases(tmp_path)[1], GRID, RULE, number)


def test_dice_by_hand(tmp_path: Path) -> None:
    one, both = np.array([[True, False]]), np.array([[True, True]])
    assert dice(one, both) == pytest.approx(200 / 3)
    assert dice(~both, ~both) == 100
    pair = block_pairs(tmp_path)[0]
    margin = torch.full((1, 1, 24, 20), -1.0)
    assert pair.dice(margin) == 0
    margin[..., 4:8, 4:10] = 1.0  # half of the block, and nothing else
    assert pair.dice(margin) == pytest.approx(200 / 3)
