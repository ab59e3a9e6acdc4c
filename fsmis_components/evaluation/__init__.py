"""Evaluation: the only place that may open a query label before prediction."""

from fsmis_components.evaluation.ep1 import Ep1Row, Ep1Score, evaluate_fold, score_case
from fsmis_components.evaluation.ep1_evaluator import Ep1Evaluator, labelled_items
from fsmis_components.evaluation.tables import format_table, mean_over_folds, write_rows

__all__ = [
    "Ep1Evaluator",
    "Ep1Row",
    "Ep1Score",
    "evaluate_fold",
    "format_table",
    "mean_over_folds",
    "score_case",
    "labelled_items",
    "write_rows",
]
