"""The mask-copy floor: the support's masks laid on the query, whose image is never read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.support.encode import structure_slices
from fsmis_components.support.sections import NUM_SECTIONS, section_slices
from fsmis_components.support.support_set import SupportSet


def support_masks(support: SupportSet, grid: SliceGrid) -> torch.Tensor:
    """Masks (N, 3, H, W) of the three sections of the first scan that holds each structure."""
    values = [structure.value for structure in support.structures]
    found: list[torch.Tensor | None] = [None] * len(values)
    for scan in support.scans:
        slices, masks = structure_slices(SliceView(scan.label, grid), values)
        for index, own in enumerate(slices):
            if own and found[index] is None:
                found[index] = masks[list(section_slices(own)), index]
    height = max(mask.shape[-2] for mask in found if mask is not None)
    width = max(mask.shape[-1] for mask in found if mask is not None)
    empty = torch.zeros(NUM_SECTIONS, height, width, dtype=torch.bool)
    return torch.stack(
        [empty if mask is None else centre_fit(mask, (height, width)) for mask in found]
    )


def copy_masks(masks: torch.Tensor, chosen: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The mask-copy floor: each query slice gets the support mask of its section.

    Args:
        masks: of the support sections, (N, 3, H, W) bool.
        chosen: section per query slice and structure, (D, N); -1: nothing.
        size: H and W of the query's slices; masks are centred on them.

    Returns:
        (D, N, H, W) bool.
    """
    fitted = centre_fit(masks, size)
    copied = fitted[torch.arange(len(masks)), chosen.clamp_min(0)]
    return copied & (chosen >= 0)[..., None, None]


def centre_fit(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Crop or pad the last two axes about the centre to `size`."""
    for axis, wanted in ((-2, size[0]), (-1, size[1])):
        have = masks.shape[axis]
        if have > wanted:
            masks = masks.narrow(axis, (have - wanted) // 2, wanted)
        elif have < wanted:
            before = (wanted - have) // 2
            padding = [before, wanted - have - before]
            masks = torch.nn.functional.pad(masks, padding if axis == -1 else [0, 0, *padding])
    return masks
