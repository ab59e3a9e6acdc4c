from __future__ import annotations

from pathlib import Path

import pytest
from block_scans import block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.correction_curve import CurvePoint, correction_curve
from fsmis_components.evaluation.subjects.network import NetworkSubject
from fsmis_components.inferers import VolumeInferer
from fsmis_components.inferers.volume_steps import VolumeSteps
from fsmis_components.support import FeatureCache, load_support_set

ONLY_SLICES = VolumeSteps(z_matching=False)


def points(folder: Path, network: IntensityNetwork, counts: list[int]) -> list[CurvePoint]:
    support = load_support_set(folder, support_ids=[1], structures=[2])
    inferer = VolumeInferer(None, steps=ONLY_SLICES)  # type: ignore[arg-type] (packs are given)
    subject = NetworkSubject(network, "network", {"spatial_size": 24}, inferer)
    cache = FeatureCache(folder / "features")
    return list(correction_curve(subject, support, find_cases(folder)[1:], counts, cache))


def test_corrected_scans_teach_what_the_support_did_not_know(tmp_path: Path) -> None:
    """In the support the structure is dim (30), so the other block (50) is taken for it as well."""
    image = block_image()
    image[14:20, 8:16, 3:9] -= 170
    write_scan(tmp_path, 1, block_label(), image)
    for number in (2, 3, 4):
        image = block_image(seed=number)
        image[4:12, 4:10, 2:11] -= 50
        write_scan(tmp_path, number, block_label(), image)
    network = IntensityNetwork()
    found = points(tmp_path, network, [0, 2])
    assert [(point.case, point.corrected, point.structure) for point in found] == [
        (case, count, "structure_2") for case in "234" for count in (0, 2)
    ]
    dice = {(point.case, point.corrected): point.dice for point in found}
    for case in "234":
        assert dice[case, 2] > dice[case, 0] + 20
    assert sum(network.encoded) == 4 * 12  # each scan once


def test_rejects_more_corrections_than_other_scans(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_scan(tmp_path, number, block_label())
    with pytest.raises(DataError, match="expected 0 to 1"):
        points(tmp_path, IntensityNetwork(), [0, 2])
