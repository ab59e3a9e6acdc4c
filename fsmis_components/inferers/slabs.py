"""A query volume in slabs of encoded slices: each slice is read and encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.layers.support_state import SupportState, move_state, select_sections
from fsmis_components.support.encode import chosen_features, encode_scan, network_device
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.support_pack import SupportPack

# query slices of one call: few, because support slices that any of them asks for serve all
_TOGETHER = 4
ABSENT = -40.0  # margin of a structure that is not there, twice the scale of cosines


class Box(NamedTuple):
    """Rows top..bottom-1 and columns left..right-1 of a slice."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Slab:
    """Features of the slices start..stop-1 of a query."""

    start: int
    stop: int
    features: Any


def encode_slabs(
    network: nn.Module,
    image: Volume,
    view: SliceView,
    pack: SupportPack,
    *,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureCache | None = None,
) -> Iterator[Slab]:
    """Encode a query slab by slab, so that memory does not grow with its depth.

    Args:
        network: in evaluation mode.
        image: the query; its intensities fit the normalisation.
        view: the query on the grid of the pack.
        pack: gives the normalisation; it fits the network.
        batch_size: slices per slab.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.
    """
    batches = encode_scan(
        network,
        image,
        view,
        pack.normalisation,
        batch_size=batch_size,
        amp=amp,
        cache=cache,
        weights=pack.weights_hash,
    )
    for start, stop, features in batches:
        yield Slab(start, stop, features)


def segment_slab(
    network: nn.Module,
    slab: Slab,
    state: SupportState,
    weights: torch.Tensor,
    *,
    amp: bool = False,
    areas: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits of a slab at the working resolution.

    Args:
        network: in evaluation mode.
        slab: encoded slices.
        state: the support state, on any device.
        weights: section weights (D, N, S) of the whole volume.
        amp: bfloat16 autocast.
        areas: bool (D, H, W), the pixels that are asked for; None: all. A network whose answer at
            a place depends on that place alone is shown only the rectangle around them.

    Returns:
        float32 logits (stop - start, 1 + N, H, W) on the network's device; structures have the
        margin ABSENT where the network was not shown anything.
    """
    device = network_device(network)
    state = move_state(state, device)
    if areas is not None and not getattr(network, "pointwise", False):
        areas = None
    parts = []
    for start in range(slab.start, slab.stop, _TOGETHER):
        stop = min(start + _TOGETHER, slab.stop)
        features = chosen_features(slab.features, range(start - slab.start, stop - slab.start))
        own, asked = weights[start:stop], state
        # sections that none of these slices asks for cost time and change nothing
        used = torch.nonzero(own.flatten(0, 1).any(0)).flatten()
        if 0 < len(used) < own.shape[-1]:
            asked, own = select_sections(state, used.to(device)), own[..., used]
        segment = partial(_segment, network, state=asked, weights=own.to(device), amp=amp)
        if areas is None:
            parts.append(segment(features))
            continue
        size = (stop - start, 1 + own.shape[1], *features.image_size)
        whole = torch.full(size, ABSENT, device=device)
        whole[:, 0] = 0.0  # the margin of the background
        box = box_around(areas[start:stop].any(0), network.stride)  # type: ignore[arg-type]
        if box.bottom > box.top:
            shown = _cut(features, box, network.stride)  # type: ignore[arg-type]
            whole[..., box.top : box.bottom, box.left : box.right] = segment(shown)
        parts.append(whole)
    return torch.cat(parts)


def _segment(
    network: nn.Module, features: Any, state: SupportState, weights: torch.Tensor, amp: bool
) -> torch.Tensor:
    with torch.autocast(weights.device.type, dtype=torch.bfloat16, enabled=amp):
        logits = network.segment(features, state, weights)  # type: ignore[operator]
    return logits.float()


def box_around(area: torch.Tensor, step: int) -> Box:
    """The smallest rectangle around an area (H, W) whose corners are multiples of `step`."""
    sides = []
    for axis, length in ((1, area.shape[0]), (0, area.shape[1])):
        found = torch.nonzero(area.any(axis)).flatten()
        if not len(found):
            return Box(0, 0, 0, 0)
        first, last = int(found[0]), int(found[-1])
        sides += [first // step * step, min(length, -(-(last + 1) // step) * step)]
    return Box(*sides)


def _cut(features: Any, box: Box, stride: int) -> Any:
    rows = slice(box.top // stride, -(-box.bottom // stride))
    columns = slice(box.left // stride, -(-box.right // stride))
    size = (box.bottom - box.top, box.right - box.left)
    return features._replace(high=features.high[..., rows, columns], image_size=size)
