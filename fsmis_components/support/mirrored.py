"""A support scan as the network sees it mirrored, so that mirrored queries can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.support.encode import encode_scan, frozen
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.scan_profile import mirror_places
from fsmis_components.support.slice_descriptors import slice_descriptors
from fsmis_components.support.support_pack import SupportPack

MIRRORS = ((0,), (1,), (0, 1))  # rows, columns, both: a turn by 180 degrees


def with_mirrored(
    network: nn.Module,
    pack: SupportPack,
    first: Volume,
    *,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureCache | None = None,
) -> SupportPack:
    """Add to a pack what its first scan looks like mirrored: at most 24 slices are encoded.

    Args:
        network: the network that made the pack; left in the mode in which it came.
        pack: the support.
        first: its first scan.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.

    Returns:
        The pack with `mirrored` in its first profile.
    """
    view = SliceView(first, pack.grid)
    places = mirror_places(view.depth)
    chosen = np.concatenate([view.native(place, place + 1) for place in places])
    through, row, column = view.native_spacing
    spacing = np.insert([row, column], pack.grid.slice_axis, through)
    affine = np.diag([*spacing, 1.0])
    grid = replace(pack.grid, directions=None, thick=None)  # the slices are in its order already
    parts = []
    with frozen(network), torch.inference_mode():
        for axes in MIRRORS:
            slices = np.flip(chosen, tuple(1 + axis for axis in axes))
            mirrored = Volume(np.moveaxis(slices, 0, pack.grid.slice_axis), affine, first.source)
            encoded = encode_scan(
                network,
                first,  # sets the normalisation
                SliceView(mirrored, grid),
                pack.normalisation,
                batch_size=batch_size,
                amp=amp,
                cache=cache,
            )
            parts.append(torch.cat([slice_descriptors(each.high).cpu() for _, _, each in encoded]))
    profile = replace(pack.profiles[0], mirrored=torch.stack(parts).half())
    return replace(pack, profiles=(profile, *pack.profiles[1:]))
