"""Encoding the support: labelled scans in, support pack out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.support.draw_seeds import draw_seeds
from fsmis_components.support.scan_profile import profile_scan, shape_cell
from fsmis_components.support.sections import plan_sections
from fsmis_components.support.slice_descriptors import slice_descriptors
from fsmis_components.support.support_pack import (
    SupportPack,
    network_method,
    network_settings,
    weights_hash,
)
from fsmis_components.support.support_set import SupportScan, SupportSet


def build_support_pack(
    network: nn.Module,
    support_set: SupportSet,
    *,
    spatial_size: int = 256,
    modality: str = "auto",
    slice_axis: str | int = "auto",
    ignore_spacing: bool = False,
    normalisation: Normalisation | None = None,
    batch_size: int = 8,
    amp: bool = False,
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
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.

    Returns:
        The pack, its tensors in float32 on the CPU.

    Raises:
        DataError: a structure vanishes at the working resolution.
    """
    first = support_set.scans[0].image
    grid = choose_slice_grid(
        first, spatial_size=spatial_size, slice_axis=slice_axis, ignore_spacing=ignore_spacing
    )
    if normalisation is None:
        normalisation = Normalisation(modality=resolve_modality(first, modality))
    values = [structure.value for structure in support_set.structures]
    views = [SliceView(scan.image, grid) for scan in support_set.scans]
    size = tuple(max(view.working_size[axis] for view in views) for axis in (0, 1))
    parts: list[_EncodedScan] = []
    with frozen(network), torch.no_grad():
        for scan, view in zip(support_set.scans, views, strict=True):
            plan = _plan_scan(scan, view, values, support_set.slices == "all")
            normalise = fit_normaliser(scan.image, normalisation)
            parts.append(_encode_scan(network, view, plan, normalise, size, batch_size, amp))
    sections = torch.cat([part.plan.sections for part in parts], dim=1)  # (N, S, 3)
    for structure, used in zip(support_set.structures, sections.flatten(1).any(1), strict=True):
        if not used:
            raise DataError(
                f"{support_set.source}: structure {structure.name} (label value {structure.value}) "
                f"is smaller than one pixel at spatial_size {spatial_size}; raise --spatial_size."
            )
    features = join_features([part.features for part in parts if part.plan.chosen])
    device = network_device(network)
    with frozen(network), torch.no_grad():
        state = network.build_support(  # type: ignore[operator]
            features,
            torch.cat([part.masks for part in parts])[None].to(device),
            sections.any(-1).T[None].to(device),
            torch.cat([part.seeds for part in parts])[None].to(device),
        )
    trusted = grid.spacing is not None
    return SupportPack(
        state={
            key: (value.float() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in state.items()
        },
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
            )
            for scan, view, part in zip(support_set.scans, views, parts, strict=True)
        ),
        structures=support_set.structures,
        grid=grid,
        normalisation=normalisation,
        method=network_method(network),
        weights_hash=weights_hash(network),
        settings=network_settings(network),
    )


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
    """A support scan after the encoder; features, masks and seeds are of the chosen slices."""

    plan: _ScanPlan
    features: Any
    masks: torch.Tensor
    seeds: torch.Tensor
    descriptors: torch.Tensor


def _plan_scan(
    scan: SupportScan, view: SliceView, values: Sequence[int], every_slice: bool
) -> _ScanPlan:
    slices, masks = structure_slices(SliceView(scan.label, view.grid), values)
    chosen, sections = plan_sections(slices, every_slice)
    return _ScanPlan(masks, chosen, sections)


def _encode_scan(
    network: nn.Module,
    view: SliceView,
    plan: _ScanPlan,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    size: tuple[int, ...],
    batch_size: int,
    amp: bool,
) -> _EncodedScan:
    """Encode all slices of a scan, once; the features of those without a label are not kept."""
    kept: list[Any] = []
    seeds: list[torch.Tensor] = []
    descriptors: list[torch.Tensor] = []
    masks = plan.masks[plan.chosen].float()
    for start in range(0, view.depth, batch_size):
        stop = min(start + batch_size, view.depth)
        image = normalise(view.slices(start, stop))
        padded = _pad_to(image, size, float(image.min()))
        features = encode_slices(network, padded, batch_size=batch_size, amp=amp)
        descriptors.append(slice_descriptors(features.high).cpu())
        own = [place - start for place in plan.chosen if start <= place < stop]
        if own:
            done = sum(part.shape[0] for part in seeds)
            seeds.append(draw_seeds(image[own], masks[done : done + len(own)]))
            kept.append(chosen_features(features, own))
    return _EncodedScan(
        plan,
        join_features(kept) if kept else None,
        _pad_to(masks, size, 0.0),
        torch.cat(seeds) if seeds else torch.zeros(0, len(plan.sections), dtype=torch.int64),
        torch.cat(descriptors),
    )


def _pad_to(tensor: torch.Tensor, size: tuple[int, ...], value: float) -> torch.Tensor:
    """Pad the last two axes equally on both sides, so that scans of unlike extent share a batch."""
    missing = [wanted - have for wanted, have in zip(size, tensor.shape[-2:], strict=True)]
    (top, left) = (total // 2 for total in missing)
    padding = (left, missing[1] - left, top, missing[0] - top)
    return F.pad(tensor, padding, value=value)
