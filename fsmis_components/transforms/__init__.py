"""Transforms: of self-supervised episodes, and reading a scan of a request."""

from fsmis_components.transforms.load_volume import LoadVolumed
from fsmis_components.transforms.pseudo_labels import PseudoLabels
from fsmis_components.transforms.warp import WarpRanges

__all__ = ["LoadVolumed", "PseudoLabels", "WarpRanges"]
