from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation import evaluate_fold, score_case
from fsmis_components.evaluation.ep1 import true_sections
from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import build_support_pack, load_support_set


def scored(folder: Path, **settings: object):  # noqa: ANN201
    """Score image_2 of a folder with image_1 as support."""
    network = IntensityNetwork()
    support = load_support_set(folder, support_ids=[1])
    pack = build_support_pack(network, support, spatial_size=24)
    case = find_cases(folder)[1]
    return score_case(network, case, support, pack, inferer=VolumeInferer(pack), **settings)  # type: ignore[arg-type]


def test_sections_by_the_true_extent() -> None:
    chosen = true_sections([[2, 3, 4, 5, 7], [], [6]], depth=9)
    assert chosen.T.tolist() == [
        [-1, -1, 0, 0, 1, 1, 2, 2, -1],
        [-1] * 9,
        [-1, -1, -1, -1, -1, -1, 0, -1, -1],
    ]


def test_a_network_that_sees_intensities_scores_its_own_kind(tmp_path: Path) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    rows = scored(tmp_path).rows
    assert [row.structure for row in rows] == ["structure_1", "structure_2"]
    # structure 1 has intensity 100, the bright structure 2 is nearer to it than to its background
    shared = block_label()[..., 3:9] > 0
    assert rows[1].ep1 == 100 and rows[0].ep1 < 100 and shared.any()
    assert [row.mask_copy for row in rows] == [100, 100]
    assert [row.whole_volume for row in rows] == [100, 100]
    assert {row.support for row in rows} == {"1"}


def test_only_the_true_extent_is_scored(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label({2: 2}), block_image())
    image = block_image()
    image[14:20, 8:16, 0] += 200  # a false structure below the true one
    write_scan(tmp_path, 2, block_label({2: 2}), image)
    score = scored(tmp_path)
    assert score.rows[0].ep1 == 100
    assert score.rows[0].whole_volume == pytest.approx(100 * 2 * 6 / (2 * 6 + 1))
    assert not score.predicted[0].any()


def test_the_floor_never_reads_the_image(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label({1: 1}))
    moved = np.roll(block_label({1: 1}), 2, axis=0)
    write_scan(tmp_path, 2, moved, np.random.default_rng(1).normal(size=moved.shape))
    row = scored(tmp_path).rows[0]
    assert row.mask_copy == pytest.approx(75)  # 6 of 8 columns overlap
    assert row.ep1 < 75


def test_an_absent_structure_has_no_figure(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2, block_label({1: 1}))
    row = scored(tmp_path).rows[1]
    assert np.isnan(row.ep1) and np.isnan(row.mask_copy)
    assert row.whole_volume == 0  # the image shows it, so it was found where no label is


def test_rejects_a_case_without_label(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2)
    with pytest.raises(DataError, match="image_2.nii.gz: evaluation needs a label"):
        scored(tmp_path)


def test_the_next_case_is_the_support_of_a_fold(tmp_path: Path) -> None:
    for number in range(1, 11):
        write_scan(tmp_path, number, block_label())
    network = IntensityNetwork().train()
    cases = find_cases(tmp_path, labels="required")
    settings = {"spatial_size": 24, "progress": False, "whole_volume": False}
    for fold, tested, support in ((0, ["1", "2"], "3"), (4, ["9", "10"], "1")):
        rows = evaluate_fold(network, cases, fold, structures=[1], **settings)  # type: ignore[arg-type]
        assert [row.case for row in rows] == tested
        assert {row.support for row in rows} == {support}
        assert all(np.isnan(row.whole_volume) for row in rows)
    assert network.training and not torch.is_inference_mode_enabled()
