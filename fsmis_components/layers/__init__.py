"""The boxes of the papers' figures: prototypes, the support state and resizing."""

from fsmis_components.layers.prototypes import GridPrototypes, PrototypeMode
from fsmis_components.layers.resize import resize_logits, resize_mask
from fsmis_components.layers.support_state import (
    SupportState,
    check_state,
    move_state,
    select_sections,
)

__all__ = [
    "GridPrototypes",
    "PrototypeMode",
    "SupportState",
    "check_state",
    "move_state",
    "resize_logits",
    "resize_mask",
    "select_sections",
]
