"""The boxes of the papers' figures, the support state and resizing."""

from fsmis_components.layers.resize import resize_logits, resize_mask
from fsmis_components.layers.support_state import (
    SupportState,
    check_state,
    move_state,
    select_sections,
)

__all__ = [
    "SupportState",
    "check_state",
    "move_state",
    "resize_logits",
    "resize_mask",
    "select_sections",
]
