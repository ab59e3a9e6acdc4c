"""A pack from a file is tried on a blank slice: only its network knows all of its shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks import eval_mode
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.encoding.scan_encoder import ScanEncoder
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.layers.support_state import SupportState, move_state
from fsmis_components.support.support_pack import SupportPack, rebuild_sentence

_SIDES = (64, 96)  # pixels; a network takes slices of any size


def try_pack(pack: SupportPack, network: nn.Module) -> None:
    """Compare a pack that fits its network with what this makes of a blank slice, and segment one.

    A missing tensor, or one of another shape than the network makes, is a `DataError`.
    """
    for plane in pack.planes:
        try_pack(plane, network)
    encoder = ScanEncoder(network)
    device, count = encoder.device, len(pack.structures)
    with eval_mode(network):
        states = []
        for side in _SIDES:
            features = encoder.slices(torch.zeros(1, 1, side, side))
            masks = torch.zeros(1, 1, count, side, side, device=device)
            masks[..., : side // 2, : side // 2] = 1
            valid = torch.ones(1, 1, count, dtype=torch.bool, device=device)
            states.append(network.build_support(features, masks, valid, None))  # type: ignore[operator]
        _compare(pack, states)
        if pack.profiles[0].descriptors.shape[1] != slice_descriptors(features.high).shape[1]:
            raise _unfit(pack, "scan.0.descriptors of another length")
        weights = pack.sections.any(-1)[None].float().to(device)
        try:
            logits = network.segment(features, move_state(pack.state, device), weights)  # type: ignore[operator]
        except (RuntimeError, ValueError, IndexError) as error:
            raise _unfit(pack, " ".join(str(error).split()[:20])) from error
    if logits.shape[:2] != (1, 1 + count) or not logits.isfinite().all():
        raise _unfit(pack, "a blank slice gets no finite logits")


def _compare(pack: SupportPack, states: Sequence[SupportState]) -> None:
    first, second = states
    if pack.state.keys() != first.keys():
        names = ", ".join(sorted(pack.state.keys() ^ first.keys()))
        raise _unfit(pack, f"only one of the two knows {names}")
    for name, kept in pack.state.items():
        made, larger = first[name], second[name]
        kind = torch.float32 if made.is_floating_point() else made.dtype
        same = kept.dtype == kind and kept.ndim == made.ndim and kept.shape[1] == made.shape[1]
        # a length that does not follow the size of the slice is the network's
        if not same or any(
            made.shape[axis] == larger.shape[axis] != kept.shape[axis]
            for axis in range(3, kept.ndim)
        ):
            raise _unfit(pack, f"state.{name} of {kept.dtype} and shape {tuple(kept.shape)}")


def _unfit(pack: SupportPack, reason: str) -> DataError:
    return DataError(
        f"{pack.source or 'this support pack'}: the support pack does not fit its network: "
        f"{reason}. {rebuild_sentence(pack.source)}"
    )
