from pathlib import Path

import numpy as np
import pytest
from block_scans import block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import SupportSource
from fsmis_components.support.calibration import StructureTest


@pytest.fixture
def network() -> IntensityNetwork:
    return IntensityNetwork()


def outcomes_of(folder: Path, network: IntensityNetwork) -> tuple[StructureTest, ...]:
    source = SupportSource(folder, spatial_size=24, self_test=True)
    calibration = VolumeInferer(source).resolve(network).calibration
    assert calibration is not None
    return calibration.tests


def test_a_scan_that_differs_is_found_out(tmp_path: Path, network: IntensityNetwork) -> None:
    for number in (1, 2):
        write_scan(tmp_path, number, block_label())
    # in scan 3 block 2 is labelled where nothing is to be seen
    label = block_label()
    label[label == 2] = 0
    label[14:20, 0:6, 3:9] = 2
    write_scan(tmp_path, 3, label)
    first, second = outcomes_of(tmp_path, network)
    assert first.mean is not None and second.mean is not None
    assert first.mean > 0.9 and second.mean < 0.9
    assert second.spread > first.spread


def test_one_scan_holds_out_its_own_slices(tmp_path: Path, network: IntensityNetwork) -> None:
    write_scan(tmp_path, 1, block_label())
    first, second = outcomes_of(tmp_path, network)
    assert first.held_out == second.held_out == "slices"
    assert first.tests > 1
    assert first.mean is not None and first.mean > 0.8


def test_a_held_out_block_does_not_answer_for_itself(
    tmp_path: Path, network: IntensityNetwork
) -> None:
    # in slices 5 and 6 block 1 is as bright as block 2: only these slices know that it may be
    image, label = block_image(seed=1), block_label()
    image[4:12, 4:10, 4:8] += 100
    write_scan(tmp_path, 1, label, image)
    plain = tmp_path / "plain"
    write_scan(plain, 1, label, block_image(seed=1))
    usual, changed = outcomes_of(plain, network), outcomes_of(tmp_path, network)
    assert changed[0].mean is not None and usual[0].mean is not None
    assert changed[0].mean < usual[0].mean - 0.1


def test_three_sections_are_too_few(tmp_path: Path, network: IntensityNetwork) -> None:
    label = np.zeros_like(block_label())
    full = block_label({1: 1})
    label[..., [3, 6, 9]] = full[..., [3, 6, 9]]
    image = block_image()
    image[block_label() == 2] = 0
    write_scan(tmp_path, 1, label, image)
    (test,) = outcomes_of(tmp_path, network)
    assert (test.mean, test.held_out) == (None, "nothing")
    label[..., 5:9] = full[..., 5:9]  # with these, slices 5 to 8 of 3 to 9 lie inside
    write_scan(tmp_path, 1, label, image)
    (test,) = outcomes_of(tmp_path, network)
    assert test.tests > 1 and test.mean is not None and test.mean > 0.9
