from __future__ import annotations

from pathlib import Path

import pytest
import torch
from block_scans import block_label, write_nifti, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.errors import DataError
from fsmis_components.support import Corrections, SupportPack, SupportSource
from fsmis_components.support.calibration import Calibration, StructureTest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scan(tmp_path / "s", 1, block_label())
    return tmp_path / "s"


def test_a_folder_is_encoded_once_per_network_and_weights(folder: Path) -> None:
    network = IntensityNetwork()
    source = SupportSource(folder, spatial_size=24)
    assert network.encoded == []  # nothing happens before it is asked
    pack = source.resolve(network)
    assert source.resolve(network) is pack
    assert sum(network.encoded) == 12 + 3 * 6  # and every second slice, mirrored three times
    with torch.no_grad():
        network.gain *= 2
    assert source.resolve(network) is not pack


def test_order_is_folder_then_pack_then_default(tmp_path: Path, folder: Path) -> None:
    network = IntensityNetwork()
    one, both = tmp_path / "one.safetensors", tmp_path / "both.safetensors"
    for path, structures in ((one, [1]), (both, None)):
        source = SupportSource(
            folder, save_support_pack=path, structures=structures, spatial_size=24
        )
        source.resolve(network)
        assert path.is_file()

    def values(**places: object) -> list[int]:
        source = SupportSource(spatial_size=24, **places)  # type: ignore[arg-type]
        return [structure.value for structure in source.resolve(network).structures]

    assert values(default_pack=one) == [1]
    assert values(support_pack=both, default_pack=one) == [1, 2]
    assert values(support_pack=both, structures="2") == [2]
    assert values(support_dir=folder, default_pack=one) == [1, 2]


def test_rejects(tmp_path: Path, folder: Path) -> None:
    network = IntensityNetwork()
    pack = tmp_path / "pack.safetensors"
    SupportSource(folder, save_support_pack=pack, spatial_size=24).resolve(network)
    stale = IntensityNetwork(window=9)
    missing = tmp_path / "missing.safetensors"
    for source, user, words in (
        (SupportSource(), network, "no support: give a folder"),
        (SupportSource(default_pack=missing), network, "no support: give a folder"),
        (SupportSource(support_pack=missing), network, "no such support pack"),
        (SupportSource(folder, support_pack=pack), network, "both --support_dir"),
        (SupportSource(support_pack=pack, num_shots=1), network, "--num_shots choose among"),
        (SupportSource(support_pack=pack), stale, "does not fit"),
        (SupportSource(default_pack=pack), stale, "--support_dir"),
    ):
        with pytest.raises(DataError) as raised:
            source.resolve(user)
        assert words in str(raised.value)


def test_corrected_scans_join_the_support(tmp_path: Path, folder: Path) -> None:
    write_scan(tmp_path / "q", 5)
    write_scan(tmp_path / "q", 6)
    mask = write_nifti(tmp_path / "c" / "image_5_seg.nii.gz", block_label({2: 2}))
    plain = SupportSource(folder, spatial_size=24).resolve(IntensityNetwork())

    def corrected() -> SupportPack:
        corrections = Corrections(tmp_path / "c", tmp_path / "q")
        source = SupportSource(folder, spatial_size=24, corrections=corrections)
        return source.resolve(IntensityNetwork())

    pack = corrected()
    assert [profile.name for profile in pack.profiles] == ["1", "5"]
    assert pack.profiles[1].extents.isnan().all(1).tolist() == [True, False]
    # the nine slices of the support, six of the corrected scan
    assert pack.origins[:, 0].tolist() == [0] * 9 + [1] * 6
    assert (pack.grid, pack.structures) == (plain.grid, plain.structures)

    write_nifti(mask, block_label({1: 1}) * 0)  # a scan without any structure
    assert [profile.name for profile in corrected().profiles] == ["1"]
    write_nifti(mask, block_label({1: 7}))
    with pytest.raises(DataError, match="label value 7, which is no structure"):
        corrected()


def test_a_support_from_a_folder_is_tested(tmp_path: Path, folder: Path) -> None:
    found = Calibration((StructureTest(0.9, 0.1, 2, "slices"),) * 2)
    path = tmp_path / "tested.safetensors"
    network = IntensityNetwork()
    source = SupportSource(folder, save_support_pack=path, spatial_size=24, self_test=True)
    assert source.resolve(network, lambda *_: found).calibration == found
    assert SupportPack.load(path).calibration == found
    assert SupportPack.load(path).selected([2]).calibration == found.selected([1])
    untested = SupportSource(folder, spatial_size=24)
    assert untested.resolve(network, lambda *_: found).calibration is None
