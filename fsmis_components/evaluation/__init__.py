"""Evaluation: the only place that may open a query label before prediction."""

from fsmis_components.evaluation.ep1_evaluator import Ep1Evaluator, labelled_items
from fsmis_components.evaluation.protocols import RULES, Ep1Rule, Task
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects import Subject

__all__ = [
    "RULES",
    "Ep1Evaluator",
    "Ep1Rule",
    "Plan",
    "Subject",
    "Task",
    "labelled_items",
    "run_benchmark",
]
