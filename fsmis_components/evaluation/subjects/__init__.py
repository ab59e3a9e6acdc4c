"""Subjects of the benchmark: our bundles, the floor, and what a user would pick instead."""

from fsmis_components.evaluation.subjects.base import Group, Subject

__all__ = ["Group", "Subject"]
