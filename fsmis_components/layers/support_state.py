"""The state of a support: plain tensors that start with batch, structure and support slice."""

from typing import Dict

import torch
from torch import Tensor

from fsmis_components.ops.precision import shape_text

# "valid" (B or 1, N, S) bool: is structure n labelled in support slice s; the method's own
# tensors beside it are (B or 1, N or 1, S, ...)
SupportState = Dict[str, Tensor]


def support_state(valid: Tensor, **parts: Tensor) -> SupportState:
    """Return the state of parts (B * S, N, ...) of support slices with validity (B, S, N)."""
    size = [valid.shape[0], valid.shape[1]]
    state = {name: part.unflatten(0, size).transpose(1, 2) for name, part in parts.items()}
    return {"valid": valid.transpose(1, 2), **state}


def check_state(state: Dict[str, Tensor]) -> None:
    """Refuse tensors that do not form a support state.

    Raises:
        ValueError: "valid" is missing or not bool, or a shape does not fit it.
    """
    valid = state.get("valid")
    if valid is None or valid.dim() != 3 or valid.dtype != torch.bool:
        got = sorted(state) if valid is None else f"{shape_text(valid)} {valid.dtype}"
        raise ValueError(
            f"SupportState: expected an entry 'valid' of bool, (B or 1, N, S), got {got}"
        )
    b, n, s = valid.shape
    for name, tensor in state.items():
        shape = tensor.shape[:3]
        if len(shape) < 3 or shape[0] not in (1, b) or shape[1] not in (1, n) or shape[2] != s:
            raise ValueError(
                f"SupportState: expected {name} of shape (B or 1, N or 1, S, ...) = "
                f"({b} or 1, {n} or 1, {s}, ...) as valid has it, got {shape_text(tensor)}"
            )


def select_sections(state: Dict[str, Tensor], index: Tensor) -> Dict[str, Tensor]:
    """Return the state of some support slices, int64 (S',) along S, in their order."""
    return {name: tensor.index_select(2, index) for name, tensor in state.items()}


def select_pairs(state: Dict[str, Tensor], batch: int, pairs: Tensor) -> Dict[str, Tensor]:
    """Return the state of Q pairs of a structure and a support slice, tensors (1, 1, Q, ...).

    Args:
        state: tensors (B or 1, N or 1, S, ...).
        batch: position along B; where B is 1, any.
        pairs: positions along N * S, int64 (Q,).
    """
    n = state["valid"].shape[1]
    chosen: Dict[str, Tensor] = {}
    for name, tensor in state.items():
        rows = tensor[min(batch, tensor.shape[0] - 1)]
        if rows.shape[0] < n:
            rows = rows.repeat_interleave(n, 0)
        chosen[name] = rows.flatten(0, 1)[pairs].unsqueeze(0).unsqueeze(0)
    return chosen


def move_state(state: Dict[str, Tensor], device: torch.device) -> Dict[str, Tensor]:
    """Return the state on a device; tensors that lie there already are not copied."""
    return {name: tensor.to(device) for name, tensor in state.items()}
