import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_scans import block_image, block_label, write_nifti
from fake_network import Intensities, IntensityNetwork

from fsmis_components.data.cases import Case
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding import ScanEncoder
from fsmis_components.selection import Describer, Preprocessing, Proposal, propose
from fsmis_components.support import FeatureCache, build_support_pack, support_set_of_cases

GEOMETRY = {"spatial_size": 64, "modality": "mr", "slice_axis": "auto", "ignore_spacing": False}


@pytest.fixture
def scans(tmp_path: Path) -> list[Case]:
    """Return three scans, and before them a file that is none and one with a single slice."""
    folder = tmp_path / "scans"
    write_nifti(folder / "a_flat.nii.gz", block_image(seed=1)[:, :, :1])
    (folder / "a_broken.nii.gz").write_bytes(b"no scan")
    for seed in (1, 2, 3):
        write_nifti(folder / f"scan_{seed}.nii.gz", block_image(seed=seed))
    return [Case(path.name.split(".")[0], path) for path in sorted(folder.iterdir())]


def ask(scans: list[Case], network: IntensityNetwork | None = None, **options: Any) -> Proposal:
    """Propose as one command does; the cache lasts from one to the next."""
    preprocessing = options.pop("preprocessing", None) or Preprocessing.of_first(scans, GEOMETRY)
    cache = FeatureCache(scans[0].image.parents[1] / "encoded")
    describer = Describer(ScanEncoder(network or IntensityNetwork(), 5), preprocessing, cache)
    return propose(describer, scans, **options)


def test_scans_are_ranked_and_what_cannot_be_used_is_named(scans: list[Case]) -> None:
    found = ask(scans, num=2)
    assert {scan.name for scan in found.scans} == {"scan_1", "scan_2", "scan_3"}
    assert [scan.chosen for scan in found.scans] == [1, 2, 0]
    assert set(found.left_out) == {"a_broken", "a_flat"}
    assert "a_flat.nii.gz: has one slice only" in found.left_out["a_flat"]


def test_each_scan_is_encoded_once_while_nothing_changes(scans: list[Case]) -> None:
    network = IntensityNetwork()
    ask(scans, network)
    assert network.encoded == [5, 5, 2] * 3 and network.training
    network.encoded.clear()
    again = ask(scans, network, labelled={"scan_2"})
    assert network.encoded == []
    assert "scan_2" not in {scan.name for scan in again.scans}
    before = scans[3].image.stat()
    write_nifti(scans[3].image, block_image(seed=5))
    os.utime(scans[3].image, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(scans[4].image, ns=(1, 1))  # the same content
    ask(scans, network)
    assert sum(network.encoded) == 12  # the slices of one scan


def test_proposals_take_turns_until_all_were_made(scans: list[Case]) -> None:
    before: dict[str, float] = {}
    for turn in range(1, 4):
        name = ask(scans, proposed_before=before).scans[0].name
        assert name not in before
        before[name] = turn
    assert before[ask(scans, proposed_before=before).scans[0].name] == 1  # the oldest


@pytest.mark.parametrize("as_support", [True, False])
def test_structures_are_looked_for_where_the_support_has_them(
    scans: list[Case], tmp_path: Path, as_support: bool
) -> None:
    label = write_nifti(tmp_path / "label.nii.gz", block_label())
    labelled = Case("scan_1", scans[2].image, label)
    network = IntensityNetwork()
    pack = build_support_pack(network, support_set_of_cases([labelled]), **GEOMETRY)
    if as_support:  # the labelled scan is known again, under another name too
        write_nifti(scans[0].image, block_image(seed=1))
        for case, shift in zip(scans[3:], (3, 6), strict=True):
            write_nifti(case.image, np.roll(block_image(), shift, axis=0))
        found = ask(scans, network, preprocessing=Preprocessing.of_support(pack), pack=pack)
    else:
        found = ask(scans, network, labelled={"scan_1"}, pack=pack)
    assert {scan.name for scan in found.scans} == {"scan_2", "scan_3"}
    for value in (1, 2):
        shown = np.flatnonzero((block_label() == value).any((0, 1)))
        slices = found.scans[0].file_slices[f"structure_{value}"]
        assert len(slices) == 3 and set(slices) <= set(shown.tolist())


def test_when_time_is_out_a_scan_without_a_label_is_encoded_all_the_same(scans: list[Case]) -> None:
    found = ask(scans, seconds=-1.0)
    assert (found.scans[0].name, found.waiting) == ("scan_1", 2)
    found = ask(scans, labelled={"scan_1"}, seconds=-1.0)
    assert (found.scans[0].name, found.waiting) == ("scan_2", 1)
    assert ask(scans, seconds=60.0).waiting == 0


class FailingNetwork(IntensityNetwork):
    def encode(self, image: torch.Tensor) -> Intensities:
        if len(self.encoded) == 3:
            self.encoded.append(0)
            raise OverflowError("too large")
        return super().encode(image)


def test_whatever_fails_in_a_scan_is_noted_and_the_others_go_on(scans: list[Case]) -> None:
    found = ask(scans, FailingNetwork())
    assert len(found.scans) == 2
    assert "scan_2.nii.gz: OverflowError: too large" in found.left_out["scan_2"]
    assert "Traceback" in (scans[0].image.parents[1] / "encoded" / "errors.log").read_text()


@pytest.mark.parametrize(("slice_axis", "stored"), [(0, 1), (1, 2), (2, 0)])
def test_numbers_in_the_file(slice_axis: int, stored: int) -> None:
    # stored as (inferior, left, anterior)
    affine = np.zeros((4, 4))
    affine[[2, 0, 1, 3], [0, 1, 2, 3]] = [-1, -1, 1, 1]
    data = np.random.default_rng(0).normal(size=(9, 10, 11))
    view = SliceView(Volume(data, affine), SliceGrid(slice_axis, None, 64))
    axis, number = view.stored_slice(2)
    assert axis == stored
    own = np.take(data, number, axis)
    assert np.sort(own, None) == pytest.approx(np.sort(view.native(2, 3), None))
