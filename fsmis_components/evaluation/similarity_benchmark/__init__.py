"""How fast prototype similarity is, and how much memory it takes, beside what one would write."""

from fsmis_components.evaluation.similarity_benchmark.ceilings import measure_ceilings
from fsmis_components.evaluation.similarity_benchmark.chart import draw_chart
from fsmis_components.evaluation.similarity_benchmark.contenders import all_contenders
from fsmis_components.evaluation.similarity_benchmark.measure import measure_case
from fsmis_components.evaluation.similarity_benchmark.problems import plan_cases
from fsmis_components.evaluation.similarity_benchmark.results import (
    claim_folder,
    run_facts,
    write_tables,
)

__all__ = [
    "all_contenders",
    "claim_folder",
    "draw_chart",
    "measure_case",
    "measure_ceilings",
    "plan_cases",
    "run_facts",
    "write_tables",
]
