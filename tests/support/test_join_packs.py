from __future__ import annotations

from pathlib import Path

import pytest
import torch
from block_scans import SHAPE, block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.support import SupportPack, build_support_pack, load_support_set
from fsmis_components.support.join_packs import join_packs, join_states
from fsmis_components.support.support_pack import content_hash


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    larger = (SHAPE[0] + 6, SHAPE[1] + 3, SHAPE[2])
    write_scan(tmp_path, 1, block_label())
    write_scan(tmp_path, 2, block_label(None, larger), block_image(larger))
    return tmp_path


def built(folder: Path, ids: list[int], like: SupportPack | None = None) -> SupportPack:
    return build_support_pack(
        IntensityNetwork(),
        load_support_set(folder, support_ids=ids),
        spatial_size=24,
        frame=None if like is None else like.frame,
    )


def test_joined_packs_equal_the_pack_of_all_scans(folder: Path) -> None:
    first, whole = built(folder, [1]), built(folder, [1, 2])
    joined = join_packs([first, built(folder, [2], first)])
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
