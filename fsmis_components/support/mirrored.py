"""A support scan as the network sees it mirrored, so that mirrored queries can be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from monai.networks import eval_mode

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding.scan_encoder import ScanEncoder
from fsmis_components.support.scan_profile import mirror_places
from fsmis_components.support.support_pack import SupportPack

MIRRORS = ((0,), (1,), (0, 1))  # rows, columns, both: a turn by 180 degrees


def with_mirrored(encoder: ScanEncoder, pack: SupportPack, first: Volume) -> SupportPack:
    """Add to a pack how the network sees its first scan mirrored: at most 24 slices are encoded."""
    view = SliceView(first, pack.grid)
    places = mirror_places(view.depth)
    chosen = np.concatenate([view.native(place, place + 1) for place in places])
    through, row, column = view.native_spacing
    spacing = np.insert([row, column], pack.grid.slice_axis, through)
    affine = np.diag([*spacing, 1.0])
    grid = replace(pack.grid, directions=None, thick=None)  # the slices are in its order already
    parts = []
    with eval_mode(encoder.network), torch.inference_mode():
        for axes in MIRRORS:
            slices = np.flip(chosen, tuple(1 + axis for axis in axes))
            mirrored = Volume(np.moveaxis(slices, 0, pack.grid.slice_axis), affine, first.source)
            parts.append(encoder.descriptors(SliceView(mirrored, grid), pack.normalisation, first))
    profile = replace(pack.profiles[0], mirrored=torch.stack(parts).half())
    return replace(pack, profiles=(profile, *pack.profiles[1:]))
