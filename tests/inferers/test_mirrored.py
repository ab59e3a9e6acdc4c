from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from block_scans import AFFINE, block_image, block_label, write_scan
from fake_network import ContrastNetwork
from folder_runs import evaluator, read_cases

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.encoding import ScanEncoder
from fsmis_components.inferers import VolumeInferer, volume_inferer
from fsmis_components.inferers.trust import told_order
from fsmis_components.support import (
    SupportPack,
    SupportSource,
    build_support_pack,
    load_support_set,
)


@pytest.mark.parametrize("axes", [(), (1,), (0, 1)])
def test_a_folder_run_reads_mirrored_scans_as_they_look_and_says_so(
    tmp_path: Path, axes: tuple[int, ...]
) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    image = np.ascontiguousarray(np.flip(block_image(seed=2), axes))
    scan = write_scan(tmp_path / "q", 2, image=image)
    network, source = ContrastNetwork(), SupportSource(tmp_path / "s", spatial_size=24)
    evaluator(tmp_path, support=source, network=network).run()
    [row] = read_cases(tmp_path / "o")
    assert ("as its header says that it lies; it was read" in row["warning"]) == bool(axes)
    found = load_image(tmp_path / "o" / "image_2_seg.nii.gz").data
    np.testing.assert_array_equal(found, np.flip(block_label(), axes))
    # packs that hold no mirrored slices of the support, as those of version 0.1
    pack = build_support_pack(network, load_support_set(tmp_path / "s"), spatial_size=24)
    warnings = VolumeInferer(pack).segment_volume(load_image(scan), network).warnings
    assert bool(warnings) == bool(axes)
    # in the order that the row tells, a student of `fit` reads the scan alike
    order = told_order(SliceView(Volume(image, AFFINE), pack.grid), row["warning"])
    read = SliceView(Volume(found, AFFINE), pack.grid, order).native_labels()
    usual = SliceView(Volume(block_label(), AFFINE), pack.grid).native_labels()
    np.testing.assert_array_equal(read, usual)


def test_a_scan_of_another_kind_is_read_as_its_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much more like the support it looks the wrong way round: nothing is found there."""
    write_scan(tmp_path, 1, block_label())
    network = ContrastNetwork()
    pack = build_support_pack(network, load_support_set(tmp_path), spatial_size=24)
    noise = Volume(np.random.default_rng(3).normal(size=block_image().shape), AFFINE)
    asked = []

    def turned(encoder: ScanEncoder, view: SliceView, pack: SupportPack) -> SliceView:
        asked.append(view)
        order = replace(view.order, backwards=(False, True, True))
        return SliceView(view.volume, view.grid, order)

    monkeypatch.setattr(volume_inferer, "turned_view", turned)
    result = VolumeInferer(pack).segment_volume(noise, network)
    assert asked and result.trust is not None and result.trust.warning
    assert not any("it was read" in warning for warning in result.warnings)
