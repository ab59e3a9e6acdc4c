"""Which unlabelled scan to label next, and which of its slices."""

from fsmis_components.selection.descriptors import (
    Describer,
    Preprocessing,
    ScanDescriptors,
    load_stack,
)
from fsmis_components.selection.proposal import Proposal, RankedScan, propose
from fsmis_components.selection.similarity import Compared

__all__ = [
    "Compared",
    "Describer",
    "Preprocessing",
    "Proposal",
    "RankedScan",
    "ScanDescriptors",
    "load_stack",
    "propose",
]
