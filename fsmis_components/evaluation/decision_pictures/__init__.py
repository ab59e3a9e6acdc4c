"""Pictures of how a network decides on a real case: what it finds on the way to the mask."""

from fsmis_components.evaluation.decision_pictures.figure import draw_rows
from fsmis_components.evaluation.decision_pictures.methods import METHODS, Method, method_of
from fsmis_components.evaluation.decision_pictures.panels import Row
from fsmis_components.evaluation.decision_pictures.slice_pair import (
    LabelledSlice,
    SlicePair,
    choose_pairs,
)

__all__ = [
    "METHODS",
    "LabelledSlice",
    "Method",
    "Row",
    "SlicePair",
    "choose_pairs",
    "draw_rows",
    "method_of",
]
