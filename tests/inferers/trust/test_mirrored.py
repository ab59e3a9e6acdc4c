from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from block_scans import AFFINE, block_image, block_label, write_scan
from fake_network import ContrastNetwork
from monai.data import Dataset

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import fit_normaliser
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.encoding import ScanEncoder
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.inferers import (
    FolderEvaluator,
    VolumeInferer,
    query_items,
    volume_inferer,
)
from fsmis_components.inferers.matching import match_volume
from fsmis_components.inferers.trust import mirror_gain
from fsmis_components.support import (
    SupportPack,
    SupportSource,
    build_support_pack,
    load_support_set,
)
from fsmis_components.support.encode import with_mirrored


def gain_of(pack: SupportPack, data: np.ndarray) -> float:
    volume = Volume(data, AFFINE)
    view = SliceView(volume, pack.grid)
    slices = fit_normaliser(volume, pack.normalisation)(view.slices(0, view.depth))
    descriptors = slice_descriptors(ContrastNetwork().encode(slices).high)
    match = match_volume(descriptors, view.native_spacing[0], pack, reach=0.0)
    return mirror_gain(descriptors, view.native_spacing[0], pack, match)


def packed(folder: Path, mirrored: bool, image: np.ndarray | None = None) -> SupportPack:
    write_scan(folder, 1, block_label(), image)
    support = load_support_set(folder)
    pack = build_support_pack(ContrastNetwork(), support, spatial_size=24)
    if mirrored:
        pack = with_mirrored(ScanEncoder(ContrastNetwork()), pack, support.scans[0].image)
    return pack


@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_a_mirrored_scan_gains(tmp_path: Path, axes: tuple[int, ...], mirrored: bool) -> None:
    pack = packed(tmp_path, mirrored)
    image = block_image(seed=7)
    assert gain_of(pack, image) < 0
    assert gain_of(pack, np.ascontiguousarray(np.flip(image, axes))) > 0.02


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_a_folder_run_reads_mirrored_scans_as_they_look_and_says_so(
    tmp_path: Path, axes: tuple[int, ...]
) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    image = np.ascontiguousarray(np.flip(block_image(seed=2), axes))
    write_scan(tmp_path / "q", 2, image=image)
    FolderEvaluator(
        device="cpu",
        dataset=Dataset(query_items(tmp_path / "q")),
        network=ContrastNetwork(),
        inferer=VolumeInferer(SupportSource(tmp_path / "s", spatial_size=24)),
        output_dir=tmp_path / "o",
    ).run()
    with (tmp_path / "o" / "cases.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert ("as its header says that it lies; it was read" in row["warning"]) == bool(axes)
    found = load_image(tmp_path / "o" / "image_2_seg.nii.gz").data
    np.testing.assert_array_equal(found, np.flip(block_label(), axes))


def test_a_scan_of_another_kind_is_read_as_its_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much more like the support it looks the wrong way round: nothing is found there."""
    noise = Volume(np.random.default_rng(3).normal(size=block_image().shape), AFFINE)
    pack, asked = packed(tmp_path, mirrored=True), []

    def turned(encoder: ScanEncoder, view: SliceView, pack: SupportPack) -> SliceView:
        asked.append(view)
        order = replace(view.order, backwards=(False, True, True))
        return SliceView(view.volume, view.grid, order)

    monkeypatch.setattr(volume_inferer, "turned_view", turned)
    result = VolumeInferer(pack).segment_volume(noise, ContrastNetwork())
    assert asked and result.is_doubtful
    assert not any("it was read" in warning for warning in result.warnings)
