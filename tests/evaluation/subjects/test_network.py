from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.cases import find_cases
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.evaluation.protocols import RULES, answer, load_query, with_labelled_slices
from fsmis_components.evaluation.subjects.bundle import NetworkSubject
from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import build_support_pack, load_support_set

GRID = SliceGrid(2, 1.0, 24)
RULE = RULES["ep1-alp"]


def asked(folder: Path, protocol: str, slices: str = "sections"):  # noqa: ANN201
    """Ask an intensity network about image_2 of a folder, with image_1 as support."""
    support = with_labelled_slices(load_support_set(folder, support_ids=[1]), GRID, slices)  # type: ignore[arg-type]
    subject = NetworkSubject(IntensityNetwork(), geometry={"spatial_size": 24})
    query = load_query(find_cases(folder)[1], [s.value for s in support.structures], GRID)
    return answer(subject, protocol, support, query, RULE)


def dice(found, structure: int) -> float:  # noqa: ANN001
    predicted, truth = found.predicted[:, structure], found.truth[:, structure]
    return 200 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


@pytest.mark.parametrize("slices", ["sections", "all"])
def test_a_network_that_sees_intensities_finds_its_own_kind(tmp_path: Path, slices: str) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    told = asked(tmp_path, RULE.name, slices)
    # structure 1 has intensity 100, the bright structure 2 is nearer to it than to its background
    assert dice(told, 1) == 100 and dice(told, 0) < 100
    for protocol in ("oracle", "wv"):  # where they compete, each gets its own
        found = asked(tmp_path, protocol, slices)
        assert [dice(found, index) for index in range(2)] == [100, 100]


def test_label_blind_equals_the_product(tmp_path: Path) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    support = load_support_set(tmp_path, support_ids=[1])
    network = IntensityNetwork()
    pack = build_support_pack(network, support, spatial_size=24)
    query = load_query(find_cases(tmp_path)[1], [1, 2], GRID)
    subject = NetworkSubject(network, geometry={"spatial_size": 24})
    expected = VolumeInferer(pack).segment_volume(query.image, network).label
    assert np.array_equal(subject.predict(support, query.image), expected)


def test_every_slice_is_encoded_once_for_all_protocols(tmp_path: Path) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    support = load_support_set(tmp_path, support_ids=[1])
    network = IntensityNetwork().train()
    subject = NetworkSubject(network, geometry={"spatial_size": 24})
    query = load_query(find_cases(tmp_path)[1], [1, 2], GRID)
    answers = [answer(subject, p, support, query, RULE) for p in (RULE.name, "oracle", "wv")]
    assert sum(network.encoded) == 12 + 12  # the query's and the support's
    subject.forget()
    repeated = answer(subject, "wv", support, query, RULE)
    assert np.array_equal(repeated.predicted, answers[2].predicted)
    assert sum(network.encoded) == 2 * (12 + 12)
    assert network.training and not torch.is_inference_mode_enabled()
