"""Which unlabelled scan to label next, and which of its slices."""

from fsmis_components.selection.descriptors import Describer, Preprocessing, load_stack
from fsmis_components.selection.proposal import Compared, Proposal, propose

__all__ = ["Compared", "Describer", "Preprocessing", "Proposal", "load_stack", "propose"]
