"""Encoding the support: labelled scans in, support pack out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.support.draw_seeds import draw_seeds
from fsmis_components.support.sections import plan_sections
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
    """Encode the labelled slices of every support scan: three sections per structure, or all.

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
    images, masks, seeds, tables = [], [], [], []
    for scan in support_set.scans:
        image, mask, table = _scan_sections(
            scan, grid, normalisation, values, support_set.slices == "all"
        )
        tables.append(table)
        if table.shape[1]:  # a scan may hold none of the wanted structures
            images.append(image)
            masks.append(mask)
            seeds.append(draw_seeds(image, mask))
    sections = torch.cat(tables, dim=1)  # (N, S, 3)
    for structure, used in zip(support_set.structures, sections.flatten(1).any(1), strict=True):
        if not used:
            raise DataError(
                f"{support_set.source}: structure {structure.name} (label value {structure.value}) "
                f"is smaller than one pixel at spatial_size {spatial_size}; raise --spatial_size."
            )
    size = tuple(max(image.shape[axis] for image in images) for axis in (-2, -1))
    image = torch.cat([_pad_to(part, size, float(part.min())) for part in images])
    mask = torch.cat([_pad_to(part, size, 0.0) for part in masks])
    with frozen(network), torch.no_grad():
        features = encode_slices(network, image, batch_size=batch_size, amp=amp)
        device = network_device(network)
        state = network.build_support(  # type: ignore[operator]
            features,
            mask[None].to(device),
            sections.any(-1).T[None].to(device),
            torch.cat(seeds)[None].to(device),
        )
    return SupportPack(
        state={
            key: (value.float() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in state.items()
        },
        sections=sections,
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


def _scan_sections(
    scan: SupportScan,
    grid: SliceGrid,
    normalisation: Normalisation,
    values: Sequence[int],
    every_slice: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (S, 1, H, W), masks (S, N, H, W) and section table (N, S, 3) of one scan."""
    view = SliceView(scan.image, grid)
    slices, masks = structure_slices(SliceView(scan.label, grid), values)
    chosen, table = plan_sections(slices, every_slice)
    normalise = fit_normaliser(scan.image, normalisation)
    if not chosen:
        height, width = view.working_size
        return torch.zeros(0, 1, height, width), torch.zeros(0, len(values), height, width), table
    image = torch.cat([normalise(view.slices(index, index + 1)) for index in chosen])
    return image, masks[chosen].float(), table


def _pad_to(tensor: torch.Tensor, size: tuple[int, ...], value: float) -> torch.Tensor:
    """Pad the last two axes equally on both sides, so that scans of unlike extent share a batch."""
    missing = [wanted - have for wanted, have in zip(size, tensor.shape[-2:], strict=True)]
    (top, left) = (total // 2 for total in missing)
    padding = (left, missing[1] - left, top, missing[0] - top)
    return F.pad(tensor, padding, value=value)
