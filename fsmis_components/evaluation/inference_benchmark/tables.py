"""What folder runs cost, as Markdown to read and CSV to go on with."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from functools import reduce

from fsmis_components.data.csv_table import csv_table
from fsmis_components.evaluation.inference_benchmark.hooks import STAGES
from fsmis_components.evaluation.inference_benchmark.measure import BundleCost, Stages
from fsmis_components.evaluation.inference_benchmark.stage_clock import StageCost
from fsmis_components.evaluation.pipe_table import pipe_table

BEFORE = "before the first scan"
_NONE = "-"
_NOTE = """\
Seconds of wall-clock time; processor time, of all threads, depends less on what else the machine
does. Resident memory is that of the whole process, its libraries included:
the largest value while the stage ran, over all columns. The support is read and encoded once.
"""


def markdown_table(costs: Sequence[BundleCost]) -> str:
    """A section per bundle: the first scan (warm-up), the second, the mean of later ones."""
    return "\n".join([*(_section(cost) for cost in costs), _NOTE])


def csv_text(costs: Sequence[BundleCost]) -> str:
    """A line per bundle, scan and stage."""
    head = ["bundle", "scan", "stage", "seconds", "processor_seconds", "resident_mib", "gpu_mib"]
    lines = [head]
    for cost in costs:
        for title, stages in [(BEFORE, cost.before), *cost.scans]:
            for stage, own in stages.items():
                times = [f"{own.seconds:.4f}", f"{own.processor_seconds:.4f}"]
                sizes = [f"{own.resident_mib:.1f}", f"{own.gpu_mib:.1f}"]
                lines.append([cost.bundle, title, stage, *times, *sizes])
    return csv_table(lines)


def _section(cost: BundleCost) -> str:
    columns = [(BEFORE, [cost.before])]
    for rank, (title, stages) in zip(("first", "second"), cost.scans, strict=False):
        columns.append((f"{rank}: {title}", [stages]))
    later = [stages for _, stages in cost.scans[2:]]
    if later:
        columns.append((f"mean of {len(later)} later", later))
    everything = [cost.before, *(stages for _, stages in cost.scans)]
    on_gpu = any(own.gpu_mib for stages in everything for own in stages.values())
    head = ["stage", *(title for title, _ in columns), "resident MiB"]
    head += ["GPU MiB"] if on_gpu else []
    rows = []
    for stage in STAGES:
        rows.append([stage, *(_seconds(stages, [stage]) for _, stages in columns)])
        rows[-1] += _peaks(everything, [stage], on_gpu)
    total = ["sum", *(_seconds(stages, STAGES) for _, stages in columns)]
    rows.append([f"**{cell}**" for cell in total + _peaks(everything, STAGES, on_gpu)])
    worked = (_seconds(stages, STAGES, "processor_seconds") for _, stages in columns)
    rows.append(["processor time", *worked, *([""] * (len(head) - 1 - len(columns)))])
    facts = "; ".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in cost.facts.items()
    )
    return f"## {cost.bundle}\n\n{pipe_table(head, rows)}\n\n{facts}\n"


def _seconds(volumes: Sequence[Stages], stages: Collection[str], clock: str = "seconds") -> str:
    """Mean over volumes of the seconds of some stages; a dash where none of them ran."""
    found = [
        getattr(volume[stage], clock) for volume in volumes for stage in stages if stage in volume
    ]
    return f"{sum(found) / len(volumes):.2f}" if found else _NONE


def _peaks(volumes: Sequence[Stages], stages: Collection[str], on_gpu: bool) -> list[str]:
    found = [volume[stage] for volume in volumes for stage in stages if stage in volume]
    peak = reduce(StageCost.joined, found, StageCost())
    shown = [peak.resident_mib, peak.gpu_mib] if on_gpu else [peak.resident_mib]
    return [_NONE if math.isnan(mib) else f"{mib:.0f}" for mib in shown]
