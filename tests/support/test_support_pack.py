from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from block_scans import SHAPE, block_image, block_label, write_scan
from fake_network import IntensityNetwork
from safetensors.torch import load_file

from fsmis_components.data.errors import DataError
from fsmis_components.support import (
    SupportPack,
    build_support_pack,
    load_support_set,
)
from fsmis_components.support.support_pack import content_hash, join_packs, join_states


@pytest.fixture
def network() -> IntensityNetwork:
    return IntensityNetwork()


@pytest.fixture
def pack(tmp_path: Path, network: IntensityNetwork) -> SupportPack:
    write_scan(tmp_path / "s", 1, block_label())
    return build_support_pack(network, load_support_set(tmp_path / "s"), spatial_size=48)


def test_save_and_load(tmp_path: Path, pack: SupportPack) -> None:
    path = pack.save(tmp_path / "new" / "pack.safetensors")
    loaded = SupportPack.load(path)
    assert content_hash(loaded) == content_hash(pack)
    assert loaded.profiles[0].facts() == {"name": "1", "slice_spacing": 4.0}
    for key, value in pack.profiles[0].tensors().items():
        assert torch.equal(loaded.profiles[0].tensors()[key], value)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_holds_no_image(tmp_path: Path, pack: SupportPack) -> None:
    tensors = load_file(pack.save(tmp_path / "pack.safetensors"))
    # descriptors: 8 x 8 cells of one channel; shapes hold masks, not intensities
    assert tensors["scan.0.descriptors"].shape == (12, 64)
    others = [tensor for name, tensor in tensors.items() if name != "scan.0.descriptors"]
    assert max(max(tensor.shape) for tensor in others) <= 48
    assert tensors["scan.0.shapes"].dtype == torch.uint8
    assert tensors["scan.0.shapes"].unique().tolist() == [0, 255]


def test_rejects_other_networks(
    tmp_path: Path, pack: SupportPack, network: IntensityNetwork
) -> None:
    class Other(IntensityNetwork):
        pass

    loaded = SupportPack.load(pack.save(tmp_path / "p.safetensors"))
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.gain += 1e-3
    for other, words in (
        (Other(), "made by IntensityNetwork and the network here is Other"),
        (changed, "made by other weights"),
        (IntensityNetwork(window=5), "other network settings (windows)"),
    ):
        with pytest.raises(DataError) as raised:
            loaded.check_fits(other)
        message = str(raised.value)
        assert words in message and str(tmp_path / "p.safetensors") in message
        assert "--support_dir" in message and "\n" not in message


def test_rejects_what_is_no_pack(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no pack at all")
    with pytest.raises(DataError, match="not a usable support pack"):
        SupportPack.load(broken)
    with pytest.raises(DataError, match="no such support pack"):
        SupportPack.load(tmp_path / "none.safetensors")


def test_selected_structures(pack: SupportPack) -> None:
    one = pack.selected([2])
    assert [s.value for s in one.structures] == [2]
    assert one.structures[0].colour == pack.structures[1].colour
    assert torch.equal(one.state["foreground"], pack.state["foreground"][:, 1:])
    assert torch.equal(one.sections, pack.sections[1:])
    assert torch.equal(one.profiles[0].shapes, pack.profiles[0].shapes[1:])
    assert one.profiles[0].extents.tolist() == [[2.5, 8.5]]
    with pytest.raises(DataError, match="label value 3"):
        pack.selected([3])


def test_joined_packs_equal_the_pack_of_all_scans(
    tmp_path: Path, network: IntensityNetwork
) -> None:
    larger = (SHAPE[0] + 6, SHAPE[1] + 3, SHAPE[2])
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2, block_label(None, larger), block_image(larger))
    one, two, both = (load_support_set(tmp_path, support_ids=ids) for ids in ([1], [2], [1, 2]))
    first, whole = (build_support_pack(network, each, spatial_size=24) for each in (one, both))
    joined = join_packs([first, build_support_pack(network, two, frame=first.frame)])
    assert content_hash(joined) == content_hash(whole)
    assert [profile.name for profile in joined.profiles] == ["1", "2"]


def test_what_one_scan_has_fewer_of_is_filled_with_what_is_not_valid() -> None:
    cells = [torch.ones(1, 1, 2, 3, 4), torch.ones(1, 1, 1, 5, 4)]  # 3 and 5 cells a slice
    flags = [torch.ones(1, 2, 2, 3, dtype=torch.bool), torch.ones(1, 2, 1, 5, dtype=torch.bool)]
    state = join_states(
        [{"cells": cell, "flags": flag} for cell, flag in zip(cells, flags, strict=True)]
    )
    assert state["cells"].shape == (1, 1, 3, 5, 4) and state["flags"].dtype == torch.bool
    assert state["flags"][0, 0].tolist() == [[True] * 3 + [False] * 2] * 2 + [[True] * 5]
    assert state["cells"].sum() == (2 * 3 + 5) * 4 and not state["cells"][0, 0, 0, 3:].any()
