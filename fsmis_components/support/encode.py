"""Encoding the support: labelled scans in, support pack out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.field_of_view import field_of_view
from fsmis_components.data.geometry import (
    AXIS_NAMES,
    SliceGrid,
    SliceView,
    choose_slice_grid,
    near_isotropic,
)
from fsmis_components.data.intensity import (
    Normalisation,
    fit_normaliser,
    intensity_warning,
    modality_of,
    resolve_modality,
)
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding.feature_cache import FeatureStore
from fsmis_components.encoding.identity import network_method, network_settings, weights_hash
from fsmis_components.encoding.scan_encoder import ScanEncoder, chosen_features, join_features
from fsmis_components.encoding.slice_descriptors import coarse_descriptors, slice_descriptors
from fsmis_components.layers.support_state import SupportState
from fsmis_components.support.scan_profile import (
    ScanProfile,
    mirror_places,
    shape_cell,
    shapes_and_extents,
)
from fsmis_components.support.sections import plan_sections
from fsmis_components.support.self_similarity import self_similarity, tissue_shares
from fsmis_components.support.support_pack import Frame, SupportPack, join_states
from fsmis_components.support.support_set import SupportScan, SupportSet

logger = logging.getLogger(__name__)

# a decoder that runs for each labelled slice and structure (CoW) takes 8 MB for each of them
PAIRS_AT_ONCE = 256
_SLICES = 16  # of a label that are in memory as float at once
MIRRORS = ((0,), (1,), (0, 1))  # rows, columns, both: a turn by 180 degrees


def build_support_pack(
    network: nn.Module,
    support_set: SupportSet,
    *,
    frame: Frame | None = None,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureStore | None = None,
    **geometry: Any,
) -> SupportPack:
    """Encode the support scans: labelled slices become the state, all slices the profile along z.

    A scan of thick slices, or of which only some slices are labelled, serves in the first plane
    alone: another would cut its label to stripes.

    Args:
        network: any network of the contract; left in the mode in which it came.
        support_set: the labelled scans and the structures.
        frame: of the pack that the scans are to join, for which they need not show every
            structure; None: `frame_of` the first scan.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.
        geometry: arguments of `frame_of`.

    Raises:
        DataError: a structure vanishes at the working resolution.
    """
    partial = frame is not None
    (first, *others), rule = frame or frame_of(support_set.scans[0].image, **geometry)
    scans = tuple(patient_of(scan, first) for scan in support_set.scans)
    if all(map(_keeps_labels, support_set.scans, scans)):
        support_set = replace(support_set, scans=scans)
    else:
        first, *others = (replace(grid, whole_slices=True) for grid in (first, *others))
    for scan in support_set.scans:
        if warning := intensity_warning(modality_of(scan.image), rule):
            logger.warning("support scan %s: %s", scan.name, warning)
    encoder = ScanEncoder(network, batch_size, amp, cache, weights_hash(network))
    with eval_mode(network):
        pack = _encode_plane(encoder, support_set, first, rule, partial)
        whole = tuple(s for s in support_set.scans if others and _serves_all_planes(s, first))
        if not whole:
            return pack
        serving = replace(support_set, scans=whole)
        planes = [_encode_plane(encoder, serving, grid, rule, True) for grid in others]
    usable = [each for each in planes if partial or each.sections.flatten(1).any(1).all()]
    return replace(pack, planes=tuple(usable))


def frame_of(
    image: Volume,
    *,
    spatial_size: int = 256,
    modality: str = "auto",
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
    fuse_planes: bool = True,
) -> Frame:
    """How a support is seen whose first scan this is.

    Slices of one plane see what those of another do not: margins of three planes averaged were
    worth 4 points of Dice on brains and 2 on hippocampi (20 and 2 structures, one labelled scan),
    at three times the time.

    Args:
        image: the first scan.
        spatial_size: pixels that its larger in-plane extent fills.
        modality: "mr", "ct" or "auto" (by its intensities).
        slice_axis: axis along which the scans are cut; "auto": that of largest spacing.
        ignore_spacing: trust no spacing of any header; every extent fills `spatial_size`.
        fuse_planes: a near-isotropic scan is cut along all three axes.
    """
    common: dict[str, Any] = {"spatial_size": spatial_size, "ignore_spacing": ignore_spacing}
    whole = choose_slice_grid(image, slice_axis=slice_axis, **common)
    image = field_of_view(image, whole).cut(image)
    grids = [choose_slice_grid(image, slice_axis=slice_axis, **common)]
    if fuse_planes and near_isotropic(image, grids[0]):
        others = [axis for axis in AXIS_NAMES.values() if axis != grids[0].slice_axis]
        grids += [choose_slice_grid(image, slice_axis=axis, **common) for axis in others]
    return Frame(tuple(grids), Normalisation(modality=resolve_modality(image, modality)))


def patient_of(scan: SupportScan, grid: SliceGrid) -> SupportScan:
    """A scan within its `field_of_view`, as it is encoded."""
    field = field_of_view(scan.image, grid)
    return replace(scan, image=field.cut(scan.image), label=field.cut(scan.label))


def _keeps_labels(whole: SupportScan, part: SupportScan) -> bool:
    """Whether all that is labelled in a scan lies within a part of it."""
    inside, everywhere = (np.count_nonzero(np.asarray(s.label.data)) for s in (part, whole))
    return inside == everywhere


def structure_masks(view: SliceView, values: Sequence[int]) -> Tensor:
    """Masks (D, N, H, W) of a label volume at the working resolution, bool; `values` give N."""
    starts = range(0, view.depth, _SLICES)
    return torch.cat([view.labels(s, min(s + _SLICES, view.depth), values) > 0 for s in starts])


def _draw_seeds(images: Tensor, masks: Tensor) -> Tensor:
    """A seed for each labelled slice: a hash of its pixels and of the structure's mask.

    The same labelled slice has the same seed whatever its file is called and whatever other
    slices, structures and scans come with it, so a network that draws at random answers alike.
    Images are normalised, (S, 1, H, W), masks (S, N, H, W); seeds int64 in [0, 2**63), (S, N).
    """
    pixels = images.float().cpu().numpy().astype("<f4")
    inside = masks.to(torch.uint8).cpu().numpy()
    seeds = torch.empty(masks.shape[:2], dtype=torch.int64)
    for s, structures in enumerate(inside):
        of_slice = hashlib.sha256(pixels[s].tobytes())
        for n, mask in enumerate(structures):
            digest = of_slice.copy()
            digest.update(mask.tobytes())
            seeds[s, n] = int.from_bytes(digest.digest()[:8], "big") >> 1
    return seeds


def _serves_all_planes(scan: SupportScan, grid: SliceGrid) -> bool:
    if not near_isotropic(scan.image, grid):
        return False
    view = SliceView(scan.label, grid)
    labelled = [bool(view.native(place, place + 1).any()) for place in range(view.depth)]
    return bool((np.diff(np.flatnonzero(labelled)) == 1).all())


def _encode_plane(
    encoder: ScanEncoder,
    support_set: SupportSet,
    grid: SliceGrid,
    normalisation: Normalisation,
    partial: bool,
) -> SupportPack:
    rules = support_set, grid, normalisation
    encoded = [_encode_scan(encoder, scan, *rules) for scan in support_set.scans]
    states, chosen, tables, profiles = zip(*encoded, strict=True)
    sections = torch.cat(tables, dim=1)  # (N, S, 3)
    for structure, used in zip(support_set.structures, sections.flatten(1).any(1), strict=True):
        if not used and not (partial and sections.any()):
            raise DataError(
                f"{support_set.source}: structure {structure.name} (label value {structure.value}) "
                f"is smaller than one pixel at spatial_size {grid.spatial_size}; raise "
                "--spatial_size."
            )
    return SupportPack(
        state=join_states([state for state in states if state is not None]),
        sections=sections,
        origins=torch.tensor([(i, place) for i, places in enumerate(chosen) for place in places]),
        profiles=profiles,
        structures=support_set.structures,
        grid=grid,
        normalisation=normalisation,
        method=network_method(encoder.network),
        weights_hash=str(encoder.weights),
        settings=network_settings(encoder.network),
    )


def _encode_scan(
    encoder: ScanEncoder,
    scan: SupportScan,
    support_set: SupportSet,
    grid: SliceGrid,
    normalisation: Normalisation,
) -> tuple[SupportState | None, list[int], Tensor, ScanProfile]:
    """State (None where no slice serves), slices that serve (S), sections (N, S, 3), profile."""
    view, cell = SliceView(scan.image, grid), shape_cell(grid)
    values = [structure.value for structure in support_set.structures]
    masks = structure_masks(SliceView(scan.label, grid), values)
    labelled = masks.flatten(2).any(-1)  # (Z, N)
    slices = [torch.nonzero(column).flatten().tolist() for column in labelled.T]
    chosen, sections = plan_sections(slices, support_set.slices == "all")
    kept: list[Any] = []
    descriptors: list[Tensor] = []
    for start, stop, features in encoder.scan(view, normalisation):
        descriptors.append(slice_descriptors(features.high).cpu())
        serving = [place - start for place in chosen if start <= place < stop]
        if serving:
            kept.append(chosen_features(features, serving))
    state = None
    if kept:  # features of slices that do not serve are not held
        features = join_features(kept)
        state = _scan_state(encoder, features, view, normalisation, masks[chosen], sections, chosen)
    shapes, extents = shapes_and_extents(masks, labelled, cell)
    tissues = tissue_shares(view, normalisation, cell)
    profile = ScanProfile(
        scan.name,
        view.native_spacing[0] if grid.spacing is not None else None,
        torch.cat(descriptors).half(),
        shapes,
        extents,
        scan.image.oriented,
        self_similarity=self_similarity(view, normalisation, cell),
        tissues=None if tissues is None else coarse_descriptors(tissues, tissues.shape[-2:]).half(),
    )
    return state, chosen, sections, profile


def _scan_state(
    encoder: ScanEncoder,
    features: Any,
    view: SliceView,
    normalisation: Normalisation,
    masks: Tensor,
    sections: Tensor,
    chosen: Sequence[int],
) -> SupportState:
    """State (1, N, S, ...) of the slices that serve, in float32 on the CPU.

    Each scan makes its own, so that scans need not be of one size and packs can be joined.
    """
    normalise, device = fit_normaliser(view.volume, normalisation), encoder.device
    # no autocast here: prototypes are kept in float32, and layers would meet half of it
    features = type(features)(*map(_in_float32, features))
    number = max(1, PAIRS_AT_ONCE // masks.shape[1])
    parts = []
    for first in range(0, len(chosen), number):
        rows = slice(first, min(first + number, len(chosen)))
        images = torch.cat([normalise(view.slices(at, at + 1)) for at in chosen[rows]])
        part = masks[rows].float()
        state = encoder.network.build_support(  # type: ignore[operator]
            chosen_features(features, range(rows.start, rows.stop)),
            part[None].to(device),
            sections[:, rows].any(-1).T[None].to(device),
            _draw_seeds(images, part)[None].to(device),
        )
        parts.append({k: _in_float32(value).cpu().contiguous() for k, value in state.items()})
    return join_states(parts)


def _in_float32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value


def with_mirrored(encoder: ScanEncoder, pack: SupportPack, first: Volume) -> SupportPack:
    """Add to a pack how the network sees its first scan mirrored: at most 24 slices are encoded."""
    first = field_of_view(first, pack.grid).cut(first)
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
