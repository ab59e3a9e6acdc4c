"""The state of a support: plain tensors that start with batch, structure and support slice."""

from typing import Dict

import torch
from torch import Tensor

from fsmis_components.ops.precision import shape_text

# "valid" (B or 1, N, S) bool: is structure n labelled in support slice s; the method's own
# tensors beside it are (B or 1, N or 1, S, ...)
SupportState = Dict[str, Tensor]


def check_state(state: Dict[str, Tensor]) -> None:
    """Refuse tensors that do not form a support state.

    Raises:
        ValueError: "valid" is missing or a shape does not fit it.
        TypeError: "valid" is not bool.
    """
    if "valid" not in state:
        raise ValueError(
            f"SupportState: expected an entry 'valid' (B or 1, N, S), got {sorted(state.keys())}"
        )
    valid = state["valid"]
    if valid.dim() != 3:
        raise ValueError(
            f"SupportState: expected valid of shape (B or 1, N, S), got {shape_text(valid)}"
        )
    if valid.dtype != torch.bool:
        raise TypeError(f"SupportState: expected valid of dtype bool, got {valid.dtype}")
    b, n, s = valid.shape[0], valid.shape[1], valid.shape[2]
    for name, tensor in state.items():
        fits = tensor.dim() >= 3
        if fits:
            fits = tensor.shape[0] in (1, b) and tensor.shape[1] in (1, n) and tensor.shape[2] == s
        if not fits:
            raise ValueError(
                f"SupportState: expected {name} of shape (B or 1, N or 1, S, ...) = "
                f"({b} or 1, {n} or 1, {s}, ...) as valid has it, got {shape_text(tensor)}"
            )


def select_sections(state: Dict[str, Tensor], index: Tensor) -> Dict[str, Tensor]:
    """Return the state of some support slices.

    Args:
        state: tensors (B or 1, N or 1, S, ...).
        index: positions along S in the wanted order, int64 (S',).

    Returns:
        Tensors (B or 1, N or 1, S', ...).
    """
    return {name: tensor.index_select(2, index) for name, tensor in state.items()}


def select_pairs(state: Dict[str, Tensor], batch: int, pairs: Tensor) -> Dict[str, Tensor]:
    """Return the state of some pairs of a structure and a support slice.

    Args:
        state: tensors (B or 1, N or 1, S, ...).
        batch: position along B; where B is 1, any.
        pairs: positions along N * S, int64 (Q,).

    Returns:
        Tensors (1, 1, Q, ...).
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
