"""Encoding the support: labelled scans in, support pack out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid
from fsmis_components.data.intensity import (
    Normalisation,
    fit_normaliser,
    intensity_warning,
    resolve_modality,
)
from fsmis_components.data.modality import modality_of
from fsmis_components.data.volumes import Volume
from fsmis_components.layers.support_state import SupportState
from fsmis_components.support.draw_seeds import draw_seeds
from fsmis_components.support.feature_cache import (
    Batch,
    FeatureCache,
    feature_key,
    features_kind,
)
from fsmis_components.support.join_packs import join_states
from fsmis_components.support.scan_profile import profile_scan, shape_cell
from fsmis_components.support.sections import plan_sections
from fsmis_components.support.self_similarity import self_similarity
from fsmis_components.support.slice_descriptors import slice_descriptors
from fsmis_components.support.support_pack import (
    SupportPack,
    network_method,
    network_settings,
    weights_hash,
)
from fsmis_components.support.support_set import SupportScan, SupportSet

logger = logging.getLogger(__name__)

# a decoder that runs for each labelled slice and structure (CoW) takes 8 MB for each of them
PAIRS_AT_ONCE = 256


def build_support_pack(
    network: nn.Module,
    support_set: SupportSet,
    *,
    spatial_size: int = 256,
    modality: str = "auto",
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
    normalisation: Normalisation | None = None,
    grid: SliceGrid | None = None,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureCache | None = None,
    partial: bool = False,
) -> SupportPack:
    """Encode the support scans: labelled slices become the state, all slices the profile along z.

    Args:
        network: any network of the contract; left in the mode in which it came.
        support_set: the labelled scans and the structures.
        spatial_size: pixels that the larger in-plane extent of the first scan fills.
        modality: "mr", "ct" or "auto" (by the first scan's intensities).
        slice_axis: axis along which the scans are cut; "auto": that of largest spacing.
        ignore_spacing: trust no spacing of any header; every extent fills `spatial_size`.
        normalisation: the intensity rule; None: the default of the modality.
        grid: the working grid, in place of the four arguments that choose one; for scans that are
            to join a pack.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept, see `encode_scan`.
        partial: the scans need not show every structure, because they are to join a pack.

    Returns:
        The pack, its tensors in float32 on the CPU.

    Raises:
        DataError: a structure vanishes at the working resolution.
    """
    first = support_set.scans[0].image
    if grid is None:
        grid = choose_slice_grid(
            first, spatial_size=spatial_size, slice_axis=slice_axis, ignore_spacing=ignore_spacing
        )
    if normalisation is None:
        normalisation = Normalisation(modality=resolve_modality(first, modality))
    for scan in support_set.scans:
        if warning := intensity_warning(modality_of(scan.image), normalisation):
            logger.warning("support scan %s: %s", scan.name, warning)
    values = [structure.value for structure in support_set.structures]
    views = [SliceView(scan.image, grid) for scan in support_set.scans]
    weights = weights_hash(network)
    parts: list[_EncodedScan] = []
    with frozen(network), torch.no_grad():
        for scan, view in zip(support_set.scans, views, strict=True):
            plan = _plan_scan(scan, view, values, support_set.slices == "all")
            batches = encode_scan(
                network,
                scan.image,
                view,
                normalisation,
                batch_size=batch_size,
                amp=amp,
                cache=cache,
                weights=weights,
            )
            parts.append(_support_scan(network, view, plan, normalisation, batches))
    sections = torch.cat([part.plan.sections for part in parts], dim=1)  # (N, S, 3)
    for structure, used in zip(support_set.structures, sections.flatten(1).any(1), strict=True):
        if not used and not (partial and sections.any()):
            raise DataError(
                f"{support_set.source}: structure {structure.name} (label value {structure.value}) "
                f"is smaller than one pixel at spatial_size {spatial_size}; raise --spatial_size."
            )
    trusted = grid.spacing is not None
    return SupportPack(
        state=join_states([part.state for part in parts if part.state is not None]),
        sections=sections,
        origins=torch.tensor(
            [(scan, place) for scan, part in enumerate(parts) for place in part.plan.chosen]
        ),
        profiles=tuple(
            profile_scan(
                scan.name,
                view.native_spacing[0] if trusted else None,
                part.descriptors,
                part.plan.masks,
                part.plan.labelled,
                shape_cell(grid),
                scan.image.oriented,
                self_similarity(view, normalisation, shape_cell(grid)),
            )
            for scan, view, part in zip(support_set.scans, views, parts, strict=True)
        ),
        structures=support_set.structures,
        grid=grid,
        normalisation=normalisation,
        method=network_method(network),
        weights_hash=weights,
        settings=network_settings(network),
    )


def encode_scan(
    network: nn.Module,
    image: Volume,
    view: SliceView,
    normalisation: Normalisation,
    *,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureCache | None = None,
    weights: str | None = None,
) -> Iterator[Batch]:
    """Encode a scan batch by batch, so that memory does not grow with its depth.

    Args:
        network: in evaluation mode.
        image: the scan; its intensities fit the normalisation.
        view: the scan on the working grid.
        normalisation: the intensity rule.
        batch_size: slices per batch.
        amp: bfloat16 autocast.
        cache: features that it keeps are read, others are kept there; None: nothing is kept.
        weights: `weights_hash` of the network where that is at hand.

    Yields:
        First slice, one past the last slice, and the network's features of these slices.
    """
    if cache is None:
        yield from _encoded(network, image, view, normalisation, batch_size, amp)
        return
    device = network_device(network)
    settings = {
        "method": network_method(network),
        "normalisation": normalisation.to_dict(),
        "batch_size": batch_size,  # the size of a batch decides how sums are rounded
        "amp": amp,
        "device": device.type,
    }
    key = feature_key(view, weights or weights_hash(network), settings)
    if key in cache:
        yield from cache.read(key, features_kind(network), device)
    else:
        encoded = _encoded(network, image, view, normalisation, batch_size, amp)
        yield from cache.keep(key, encoded, image.title)


def _encoded(
    network: nn.Module,
    image: Volume,
    view: SliceView,
    normalisation: Normalisation,
    batch_size: int,
    amp: bool,
) -> Iterator[Batch]:
    normalise = fit_normaliser(image, normalisation)
    for start in range(0, view.depth, batch_size):
        stop = min(start + batch_size, view.depth)
        slices = normalise(view.slices(start, stop))
        yield start, stop, encode_slices(network, slices, batch_size=batch_size, amp=amp)


def encode_slices(
    network: nn.Module, image: torch.Tensor, *, batch_size: int = 8, amp: bool = False
) -> Any:
    """Features of slices (B, 1, H, W), encoded in batches: the network's own NamedTuple."""
    device = network_device(network)
    parts = []
    for batch in image.split(batch_size):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            parts.append(network.encode(batch.to(device)))  # type: ignore[operator]
    return join_features(parts)


def join_features(parts: Sequence[Any]) -> Any:
    """Join feature tuples along the batch axis; what is no tensor is taken from the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return type(first)(
        *(
            torch.cat([part[index] for part in parts]) if torch.is_tensor(entry) else entry
            for index, entry in enumerate(first)
        )
    )


def chosen_features(features: Any, index: Sequence[int]) -> Any:
    """The features of some slices; what is no tensor is kept."""
    rows = list(index)
    return type(features)(*(entry[rows] if torch.is_tensor(entry) else entry for entry in features))


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the mode that was there before outside."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def network_device(network: nn.Module) -> torch.device:
    """Where the network's parameters lie; the CPU for a network without any."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def structure_slices(
    view: SliceView, values: Sequence[int], slab: int = 16
) -> tuple[list[list[int]], torch.Tensor]:
    """Where each structure is at the working resolution.

    Args:
        view: a label volume seen as slices.
        values: label value per structure.
        slab: slices that are in memory as float at once.

    Returns:
        Per structure the slices that contain it, ascending, and the masks (D, N, H, W) as bool.
    """
    parts = []
    for start in range(0, view.depth, slab):
        stop = min(start + slab, view.depth)
        parts.append(view.labels(start, stop, values) > 0)
    masks = torch.cat(parts)
    present = masks.flatten(2).any(-1)  # (D, N)
    return [torch.nonzero(column).flatten().tolist() for column in present.T], masks


@dataclass(frozen=True)
class _ScanPlan:
    """What of a support scan is to be encoded.

    Attributes:
        masks: bool (Z, N, H, W), the structures at the working resolution.
        chosen: slices that serve, ascending (S of them).
        sections: bool (N, S, 3).
    """

    masks: torch.Tensor
    chosen: list[int]
    sections: torch.Tensor

    @property
    def labelled(self) -> torch.Tensor:
        """Slices in which each structure is labelled, bool (Z, N)."""
        return self.masks.flatten(2).any(-1)


@dataclass(frozen=True)
class _EncodedScan:
    """A support scan after the encoder; the state is None where no slice of it serves."""

    plan: _ScanPlan
    state: SupportState | None
    descriptors: torch.Tensor


def _plan_scan(
    scan: SupportScan, view: SliceView, values: Sequence[int], every_slice: bool
) -> _ScanPlan:
    slices, masks = structure_slices(SliceView(scan.label, view.grid), values)
    chosen, sections = plan_sections(slices, every_slice)
    return _ScanPlan(masks, chosen, sections)


def _support_scan(
    network: nn.Module,
    view: SliceView,
    plan: _ScanPlan,
    normalisation: Normalisation,
    batches: Iterator[Batch],
) -> _EncodedScan:
    """State and profile of a scan; the features of slices that do not serve are not held."""
    kept: list[Any] = []
    descriptors: list[torch.Tensor] = []
    for start, stop, features in batches:
        descriptors.append(slice_descriptors(features.high).cpu())
        own = [place - start for place in plan.chosen if start <= place < stop]
        if own:
            kept.append(chosen_features(features, own))
    state = _scan_state(network, view, plan, normalisation, join_features(kept)) if kept else None
    return _EncodedScan(plan, state, torch.cat(descriptors))


def _scan_state(
    network: nn.Module,
    view: SliceView,
    plan: _ScanPlan,
    normalisation: Normalisation,
    features: Any,
) -> SupportState:
    """State (1, N, S, ...) of the slices that serve, in float32 on the CPU.

    Each scan makes its own, so that scans need not be of one size and packs can be joined.
    """
    normalise = fit_normaliser(view.volume, normalisation)
    device = network_device(network)
    # no autocast here: prototypes are kept in float32, and layers would meet half of it
    whole = (
        entry.float() if torch.is_tensor(entry) and entry.is_floating_point() else entry
        for entry in features
    )
    features = type(features)(*whole)
    number = max(1, PAIRS_AT_ONCE // plan.masks.shape[1])
    parts = []
    for first in range(0, len(plan.chosen), number):
        rows = range(first, min(first + number, len(plan.chosen)))
        places = [plan.chosen[row] for row in rows]
        masks = plan.masks[places].float()
        images = torch.cat([normalise(view.slices(place, place + 1)) for place in places])
        state = network.build_support(  # type: ignore[operator]
            chosen_features(features, rows),
            masks[None].to(device),
            plan.sections[:, rows.start : rows.stop].any(-1).T[None].to(device),
            draw_seeds(images, masks)[None].to(device),
        )
        parts.append(
            {
                key: (value.float() if value.is_floating_point() else value).cpu().contiguous()
                for key, value in state.items()
            }
        )
    return join_states(parts)
