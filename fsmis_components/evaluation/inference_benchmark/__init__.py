"""Time and memory of a folder run, stage by stage, from the code that users run."""

from fsmis_components.evaluation.inference_benchmark.measure import BundleCost, measure_bundle
from fsmis_components.evaluation.inference_benchmark.stage_clock import StageClock, StageCost
from fsmis_components.evaluation.inference_benchmark.tables import csv_text, markdown_table

__all__ = [
    "BundleCost",
    "StageClock",
    "StageCost",
    "csv_text",
    "markdown_table",
    "measure_bundle",
]
