"""Joining support packs: more labelled scans for the same structures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.layers.support_state import SupportState
from fsmis_components.support.support_pack import SupportPack


def join_packs(packs: Sequence[SupportPack]) -> SupportPack:
    """One pack of the scans of several, of one network, structures, grid and normalisation.

    No scan has to be encoded again, so a corrected mask joins a support in the time that its own
    scan takes. Planes are joined too; one in which a structure is nowhere labelled is left out. The
    joined pack is not tested. Packs that do not belong together are a ValueError.
    """
    first = packs[0]
    for other in packs[1:]:
        for name in ("structures", "grid", "normalisation", "method", "weights_hash", "settings"):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(f"join_packs: expected packs of the same {name}")
    origins, scans = [], 0
    for pack in packs:
        origins.append(pack.origins + torch.tensor([scans, 0]))
        scans += len(pack.profiles)
    return replace(
        first,
        state=join_states([pack.state for pack in packs]),
        sections=torch.cat([pack.sections for pack in packs], dim=1),
        origins=torch.cat(origins),
        profiles=tuple(profile for pack in packs for profile in pack.profiles),
        calibration=None,  # it tested another support
        planes=_joined_planes([pack.planes for pack in packs]),
    )


def _joined_planes(planes: Sequence[Sequence[SupportPack]]) -> tuple[SupportPack, ...]:
    by_grid: dict[SliceGrid, list[SupportPack]] = {}
    for plane in itertools.chain.from_iterable(planes):
        by_grid.setdefault(plane.grid, []).append(plane)
    joined = [join_packs(of_plane) for of_plane in by_grid.values()]
    return tuple(plane for plane in joined if plane.sections.flatten(1).any(1).all())


def join_states(states: Sequence[SupportState]) -> SupportState:
    """Join states of one network, tensors (1, N or 1, S, ...), along the support slices.

    What a slice has many of, such as the cells of a grid, may differ in number between scans of
    unlike size; the missing ones are filled with zeros, whose flags say that they are not valid.
    """
    return {name: _joined([state[name] for state in states]) for name in states[0]}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    sizes = [part.shape[3:] for part in parts]
    largest = [max(lengths) for lengths in zip(*sizes, strict=True)]
    filled = []
    for part in parts:
        missing = [most - length for most, length in zip(largest, part.shape[3:], strict=True)]
        # F.pad counts axes from the last
        padding = [amount for length in reversed(missing) for amount in (0, length)]
        filled.append(F.pad(part, padding) if any(missing) else part)
    return torch.cat(filled, dim=2)
