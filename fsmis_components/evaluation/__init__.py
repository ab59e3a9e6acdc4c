"""Evaluation: the only place that may open a query label before prediction."""

from fsmis_components.evaluation.ep1_evaluator import Ep1Evaluator, labelled_items

__all__ = ["Ep1Evaluator", "labelled_items"]
