from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_scans import SHAPE, block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.errors import DataError
from fsmis_components.layers.support_state import SupportState
from fsmis_components.support import SupportSet, build_support_pack, encode, load_support_set


def three_sections(folder: Path, structures: list[int] | None = None) -> SupportSet:
    return replace(load_support_set(folder, structures=structures), slices="sections")


def test_every_slice_is_encoded_once(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    network = IntensityNetwork().train()
    pack = build_support_pack(network, load_support_set(tmp_path), spatial_size=24, batch_size=5)
    assert network.encoded == [5, 5, 2]
    # slices 2..10 of 12 show a structure
    assert pack.origins.tolist() == [[0, z] for z in range(2, 11)]
    assert pack.state["valid"][0].sum(-1).tolist() == [9, 6]
    assert pack.profiles[0].depth == 12 and pack.profiles[0].slice_spacing == 4.0
    assert pack.profiles[0].extents.tolist() == [[1.5, 10.5], [2.5, 8.5]]


def test_many_labelled_slices_are_built_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(tmp_path, 1, block_label())
    network, together = IntensityNetwork(), []
    support, build = load_support_set(tmp_path), network.build_support
    whole = build_support_pack(network, support, spatial_size=24)

    def counted(features: Any, masks: torch.Tensor, *rest: Any) -> SupportState:
        together.append(masks.shape[1] * masks.shape[2])
        return build(features, masks, *rest)

    monkeypatch.setattr(network, "build_support", counted)
    monkeypatch.setattr(encode, "PAIRS_AT_ONCE", 8)
    parts = build_support_pack(network, support, spatial_size=24)
    assert together == [8, 8, 2]  # nine slices, two structures
    assert all(torch.equal(parts.state[key], value) for key, value in whole.state.items())


def test_three_sections_of_each_structure_serve(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    network = IntensityNetwork().train()
    pack = build_support_pack(network, three_sections(tmp_path), spatial_size=24)
    # block 1: slices 2..10 -> 3, 6, 9; block 2: slices 3..8 -> 4, 6, 8; slice 6 serves both
    assert pack.sections.shape == (2, 5, 3)
    assert pack.origins.tolist() == [[0, z] for z in (3, 4, 6, 8, 9)]
    section, structure = pack.sections.permute(2, 0, 1).int().argmax(-1), [0, 1]
    assert section[:, structure].tolist() == [[0, 1], [2, 2], [4, 3]]
    assert torch.equal(pack.state["valid"], pack.sections.any(-1)[None])
    assert network.training
    assert pack.normalisation.modality == "mr"


def test_a_scan_without_the_wanted_structure_is_passed_over(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label({1: 1}))
    write_scan(tmp_path, 2, block_label({2: 2}))
    support = three_sections(tmp_path, [2])
    pack = build_support_pack(IntensityNetwork(), support, spatial_size=24)
    assert pack.sections.shape == (1, 3, 3)
    assert pack.profiles[0].extents.isnan().all() and not pack.profiles[0].shapes.any()


def test_rejects_a_structure_below_one_pixel(tmp_path: Path) -> None:
    label = np.zeros((96, 80, 6), np.uint8)
    label[10:12, 10:12, 2] = 1
    label[40:60, 40:60, 2] = 2
    image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
    write_scan(tmp_path, 1, label, image)
    with pytest.raises(DataError, match="structure_1 .* smaller than one pixel at spatial_size 12"):
        build_support_pack(IntensityNetwork(), load_support_set(tmp_path), spatial_size=12)


def test_seeds_follow_the_labelled_slice_alone(tmp_path: Path) -> None:
    """Neither the order of structures nor a second, larger scan changes a slice's seed."""

    def seeds(folder: Path, structures: list[int] | None = None) -> torch.Tensor:
        drawn: list[torch.Tensor] = []

        class Recorder(IntensityNetwork):
            def build_support(self, *args: Any, **kwargs: Any) -> SupportState:
                state = super().build_support(*args, **kwargs)
                assert self.seeds is not None and self.seeds.dtype == torch.int64
                drawn.append(self.seeds)
                return state

        build_support_pack(Recorder(), three_sections(folder, structures), spatial_size=24)
        return torch.cat(drawn, 1)

    write_scan(tmp_path / "one", 1, block_label(), block_image(seed=1))
    alone = seeds(tmp_path / "one")
    assert alone.shape == (1, 5, 2)
    assert int(alone.min()) >= 0 and len(alone.unique()) == 10
    assert torch.equal(seeds(tmp_path / "one", [2, 1]), alone.flip(2))

    larger = (SHAPE[0] + 6, SHAPE[1] + 3, SHAPE[2])
    # the same scan under another name
    write_scan(tmp_path / "two", 7, block_label(), block_image(seed=1))
    write_scan(tmp_path / "two", 8, block_label({1: 1}, larger), block_image(larger))
    together = seeds(tmp_path / "two")
    assert together.shape == (1, 5 + 3, 2)
    assert torch.equal(together[:, :5], alone)
