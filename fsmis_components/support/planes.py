"""A support in the planes in which scans are cut: one, or three where voxels are near-isotropic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from fsmis_components.data.geometry import (
    AXIS_NAMES,
    SliceGrid,
    SliceView,
    choose_slice_grid,
    near_isotropic,
)
from fsmis_components.data.intensity import Normalisation, resolve_modality
from fsmis_components.data.volumes import Volume
from fsmis_components.support.encode import build_support_pack
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportScan, SupportSet


def plane_grids(image: Volume, fuse_planes: bool = True, **geometry: Any) -> tuple[SliceGrid, ...]:
    """The grids on which a support is encoded.

    Args:
        image: the first support scan.
        fuse_planes: a near-isotropic scan is cut along all three axes.
        geometry: `spatial_size`, `slice_axis`, `ignore_spacing` of `choose_slice_grid`.

    Returns:
        The grid of `choose_slice_grid`; with planes also those of the two other axes.
    """
    first = choose_slice_grid(image, **geometry)
    if not fuse_planes or not near_isotropic(image, first):
        return (first,)
    others = [axis for axis in AXIS_NAMES.values() if axis != first.slice_axis]
    return (
        first,
        *(choose_slice_grid(image, **{**geometry, "slice_axis": axis}) for axis in others),
    )


def build_planes(
    network: nn.Module,
    support_set: SupportSet,
    *,
    grids: Sequence[SliceGrid] | None = None,
    normalisation: Normalisation | None = None,
    modality: str = "auto",
    partial: bool = False,
    fuse_planes: bool = True,
    spatial_size: int = 256,
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
    **encoding: Any,
) -> SupportPack:
    """Encode the support scans in each plane.

    Slices of one plane see what those of another do not: margins of three planes averaged were
    worth 4 points of Dice on brains and 2 on hippocampi (20 and 2 structures, one labelled scan),
    at three times the time.

    Args:
        network: any network of the contract.
        support_set: the labelled scans. One of thick slices, or of which only some slices are
            labelled, serves in the first plane alone: another would cut its label to stripes.
        grids: of the planes, in place of the four arguments that choose them; for scans that are
            to join a pack.
        normalisation: the intensity rule; None: the default of the modality.
        modality: see `build_support_pack`.
        partial: see `build_support_pack`.
        fuse_planes: see `plane_grids`.
        spatial_size: see `build_support_pack`.
        slice_axis: see `build_support_pack`.
        ignore_spacing: see `build_support_pack`.
        encoding: `batch_size`, `amp` and `cache` of `build_support_pack`.

    Returns:
        The pack of the first plane, those of the others as its `planes`.

    Raises:
        DataError: as `build_support_pack`.
    """
    image = support_set.scans[0].image
    first, *others = grids or plane_grids(
        image,
        fuse_planes,
        spatial_size=spatial_size,
        slice_axis=slice_axis,
        ignore_spacing=ignore_spacing,
    )
    options = {
        "normalisation": normalisation or Normalisation(resolve_modality(image, modality)),
        "spatial_size": first.spatial_size,
        **encoding,
    }
    pack = build_support_pack(network, support_set, grid=first, partial=partial, **options)
    # labels are read through only where there is another plane
    whole = tuple(s for s in support_set.scans if _serves_all_planes(s, first)) if others else ()
    if not whole:
        return pack
    serving = replace(support_set, scans=whole)
    planes = [
        build_support_pack(network, serving, grid=grid, partial=True, **options) for grid in others
    ]
    usable = [each for each in planes if partial or each.sections.flatten(1).any(1).all()]
    return replace(pack, planes=tuple(usable))


def _serves_all_planes(scan: SupportScan, grid: SliceGrid) -> bool:
    if not near_isotropic(scan.image, grid):
        return False
    view = SliceView(scan.label, grid)
    labelled = [bool(view.native(place, place + 1).any()) for place in range(view.depth)]
    return bool((np.diff(np.flatnonzero(labelled)) == 1).all())
