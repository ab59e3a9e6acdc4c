from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import block_image, write_nifti, write_scan
from fake_network import IntensityNetwork
from scan_looks import GRID

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.suggest.folder import FolderLooks, look_at_folder
from fsmis_components.inferers.suggest.look_store import LookStore
from fsmis_components.inferers.suggest.scan_look import LookRule, look_at

RULE = LookRule(GRID, Normalisation("mr"), own_extent=True)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for number in (1, 2, 3):
        write_scan(folder, number)
    return folder


def looks_of(
    scans: Path, network: IntensityNetwork, rule: LookRule = RULE, amp: bool = False
) -> FolderLooks:
    store = LookStore(scans.parent / "looks", network, rule, amp)
    cases = find_cases(scans, labels="never")
    return look_at_folder(network, cases, rule, store, progress=False)


def test_a_look_by_hand(scans: Path) -> None:
    network = IntensityNetwork()
    volume = load_image(scans / "image_1.nii.gz")
    found = look_at(network, volume, "1", RULE, batch_size=5)
    assert (found.depth, found.slice_spacing) == (12, 4.0)
    assert network.encoded == [5, 5, 2] and network.training
    # 24 x 20 pixels fill 64 x 53; one channel of unit length is the sign of the intensity
    assert found.grid.spacing == pytest.approx(24 / 64)
    cells = found.descriptors.unflatten(1, (8, 8))
    assert cells[5, 2, 2] == 1  # within a block
    assert cells[5, 7, 0] == -1  # within none


def test_a_second_call_encodes_nothing(scans: Path) -> None:
    network = IntensityNetwork()
    first = looks_of(scans, network)
    network.encoded.clear()
    second = looks_of(scans, network)
    assert network.encoded == []
    for a, b in zip(first.looks, second.looks, strict=True):
        assert torch.equal(a.descriptors, b.descriptors)
        assert (a.name, a.grid, a.slice_spacing) == (b.name, b.grid, b.slice_spacing)


def test_what_changed_is_encoded_again(scans: Path) -> None:
    network = IntensityNetwork()
    plain = write_nifti(scans / "image_4.nii", block_image(seed=4))
    looks_of(scans, network)
    before = plain.stat()
    write_nifti(plain, block_image(seed=5))  # of the same size
    os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(write_scan(scans, 2), ns=(1, 1))  # the same content
    network.encoded.clear()
    looks_of(scans, network)
    assert sum(network.encoded) == 12  # the slices of one scan


def test_only_the_user_may_read_looks(scans: Path) -> None:
    looks_of(scans, IntensityNetwork())
    folder = scans.parent / "looks"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_whatever_fails_in_a_scan_is_noted_and_the_others_go_on(
    scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> object:
        if path.name == "image_2.nii.gz":
            raise OverflowError("too large")
        return load_image(path)

    monkeypatch.setattr("fsmis_components.inferers.suggest.folder.load_image", fail)
    found = looks_of(scans, IntensityNetwork())
    assert len(found.looks) == 2 and len(found.failures) == 1
    assert "image_2.nii.gz: OverflowError: too large" in "".join(found.failures.values())
    assert "Traceback" in (scans.parent / "looks" / "errors.log").read_text()


@pytest.mark.parametrize("what", ["weights", "settings", "rule", "amp"])
def test_other_circumstances_are_encoded_anew(what: str, scans: Path) -> None:
    looks_of(scans, IntensityNetwork())
    network = IntensityNetwork(window=5 if what == "settings" else 3)
    if what == "weights":
        torch.nn.init.constant_(network.gain, 2.0)
    rule = LookRule(GRID, Normalisation("mr"), own_extent=what != "rule")
    looks_of(scans, network, rule, amp=what == "amp")
    assert sum(network.encoded) == 36


def test_a_damaged_look_is_made_anew(scans: Path) -> None:
    network = IntensityNetwork()
    looks_of(scans, network)
    broken = sorted((scans.parent / "looks").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:40])
    network.encoded.clear()
    assert len(looks_of(scans, network).looks) == 3
    assert sum(network.encoded) == 12


def test_a_broken_scan_is_left_out(scans: Path) -> None:
    (scans / "image_2.nii.gz").write_bytes(b"no scan")
    found = looks_of(scans, IntensityNetwork())
    assert [case.name for case in found.cases] == ["1", "3"]
    assert [look.name for look in found.looks] == ["1", "3"]
    assert list(found.failures) == ["2"] and "image_2.nii.gz" in found.failures["2"]


def test_labels_are_not_opened(scans: Path) -> None:
    (scans / "label_1.nii.gz").write_bytes(b"no label")
    assert len(looks_of(scans, IntensityNetwork()).looks) == 3


def test_a_scan_is_known_again(scans: Path) -> None:
    network = IntensityNetwork()
    write_scan(scans, 2, image=np.roll(block_image(), 3, axis=0))
    found = looks_of(scans, network)
    one, other, _ = found.looks
    again = look_at(network, load_image(scans / "image_1.nii.gz"), "copy", RULE)
    assert one.same_as(again)
    assert not one.same_as(other)
    left = found.without([again])
    assert [case.name for case in left.cases] == [look.name for look in left.looks] == ["2"]


def test_rejects_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="choose another --output_dir"):
        LookStore(tmp_path / "taken" / "looks", IntensityNetwork(), RULE)
