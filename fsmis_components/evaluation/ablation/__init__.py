"""Ablations: what each part of a network is worth, trained and tested by one short schedule."""

from fsmis_components.evaluation.ablation.plan import AblationPlan, Piece, read_ablation_plan
from fsmis_components.evaluation.ablation.results import write_ablation
from fsmis_components.evaluation.ablation.run import run_ablation

__all__ = ["AblationPlan", "Piece", "read_ablation_plan", "run_ablation", "write_ablation"]
