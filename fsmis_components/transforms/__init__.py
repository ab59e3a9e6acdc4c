"""Transforms: of self-supervised episodes, and reading a scan of a request."""

from fsmis_components.data.field_of_view import body_mask
from fsmis_components.transforms.contrast import ContrastRanges, apply_contrast, draw_contrast
from fsmis_components.transforms.load_volume import LoadVolumed
from fsmis_components.transforms.pseudo_labels import PseudoLabels
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp

__all__ = [
    "ContrastRanges",
    "LoadVolumed",
    "PseudoLabels",
    "WarpRanges",
    "apply_contrast",
    "apply_warp",
    "body_mask",
    "draw_contrast",
    "draw_warp",
]
