"""Time and peak memory of segmenting scans by a bundle.

    python tools/benchmark_inference.py bundles/ssl_alpnet --support_dir labelled \
        --dataset_dir scans --threads 2

Prints a Markdown table in seconds: what the network takes to encode slices, to make the support's
state and to segment, and the rest (reading, matching, cleaning up, writing the mask). "support" is
done once; the first scan warms up, the second is what a scan of a folder costs.
"""

import functools
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fsmis_components.bundle import Bundle
from fsmis_components.commands.command_line import command, pairs
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.records import surroundings
from fsmis_components.evaluation.tables import pipe_table

STEPS = ("encode", "build_support", "segment")  # of every network
ROWS = (*STEPS, "rest", "sum", "processor time, all threads")


def measure(
    bundle: Path,
    dataset_dir: Path,
    support_dir: Path | None = None,
    cases: int = 3,
    threads: int | None = None,
    weights: str = "shipped",
    knobs: str | None = None,
) -> None:
    """Segment the first scans of a folder; print what each step took.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of scans.
        support_dir: labelled scans; default: the bundle's pack.
        cases: scans to segment.
        threads: threads of torch.
        weights: a file in place of the shipped ones, or untrained.
        knobs: KNOB=VALUE, knobs of inference.json.

    Raises:
        DataError: no bundle there, no such knob, no support, or a scan that cannot be used.
    """
    if cases < 1:
        raise DataError(f"--cases: expected 1 or more, got {cases}.")
    if threads:
        torch.set_num_threads(threads)
    loaded = Bundle(bundle, weights, knobs=pairs(knobs, "knobs"))
    device = next(loaded.network.parameters()).device
    booked: Counter[str] = Counter()
    for step in STEPS:
        timed = _timed(getattr(loaded.network, step), step, booked, device)
        setattr(loaded.network, step, timed)
    columns: dict[str, list[str]] = {}

    def column(title: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns; its seconds become a column."""
        booked.clear()
        since, processor = time.perf_counter(), time.process_time()
        result = function(*arguments)
        total, processor = time.perf_counter() - since, time.process_time() - processor
        parts = [booked[step] for step in STEPS]
        figures = [*parts, total - sum(parts), total, processor]
        columns[title] = [f"{seconds:.2f}" for seconds in figures]
        return result

    place = support_dir or bundle / "models" / "support_pack.safetensors"
    support = column("support", loaded.support, place)
    with tempfile.TemporaryDirectory() as masks:
        for case in find_cases(dataset_dir, labels="never")[:cases]:
            mask = Path(masks) / "mask.nii.gz"
            column(case.image.name, loaded.segment, case.image, support, mask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mebibytes = peak / (2**20 if sys.platform == "darwin" else 2**10)
    facts = {"peak resident memory": f"{mebibytes:.0f} MiB", **surroundings(device)}
    if device.type == "cuda":
        facts["peak on the GPU"] = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"
    said = "; ".join(f"{key}: {value}" for key, value in facts.items())
    rows = [[row, *(found[at] for found in columns.values())] for at, row in enumerate(ROWS)]
    print(f"## {bundle.resolve().name}\n\n{pipe_table(['step', *columns], rows)}\n\n{said}")


def _timed(
    function: Callable[..., Any], step: str, booked: Counter[str], device: torch.device
) -> Callable[..., Any]:
    """The function, its seconds booked to a step."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        if device.type == "cuda":  # its work counts for the step that asked for it
            torch.cuda.synchronize(device)
        booked[step] += time.perf_counter() - start
        return result

    return call


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where there is nothing to measure."""
    return command(measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
