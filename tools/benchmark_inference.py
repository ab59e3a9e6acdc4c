"""Time and peak memory of segmenting a folder by a bundle, as its inference command does.

    python tools/benchmark_inference.py bundles/ssl_alpnet --support_dir labelled \
        --dataset_dir scans --threads 2

Prints a Markdown table in seconds: what the network takes to encode slices, to make the support's
state and to segment, and the rest (reading, matching, cleaning up, writing). "before" is all that
comes before the first scan; the first scan warms up, the second is what a scan of a folder costs.
The masks are deleted again.
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
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from command import command, yaml_value
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.provenance import surroundings
from fsmis_components.evaluation.tables import pipe_table

STEPS = ("encode", "build_support", "segment")  # of every network
ROWS = (*STEPS, "rest", "sum", "processor time, all threads")


def measure(
    bundle: Path,
    dataset_dir: Path,
    support_dir: Path | None = None,
    cases: int = 3,
    threads: int | None = None,
    knobs: str | None = None,
) -> None:
    """Segment the first scans of a folder; print what each step took.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of scans.
        support_dir: labelled scans; default: the bundle's pack.
        cases: scans to segment.
        threads: threads of torch.
        knobs: others of inference.json: {amp: true}

    Raises:
        DataError: no bundle there, no such knob, no support, or a scan that cannot be used.
    """
    if threads:
        torch.set_num_threads(threads)
    given = yaml_value(knobs, "--knobs") or {}
    if not isinstance(given, dict) or cases < 1:
        raise DataError(
            f"--knobs, --cases: expected {{knob: value}} and 1 or more, got {knobs} and {cases}."
        )
    own = {"dataset_dir": str(dataset_dir), **given}
    if support_dir:
        own["support_dir"] = str(support_dir)
    columns: dict[str, dict[str, float]] = {}
    booked: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as masks:
        parser = _prepared(bundle, cases, {**own, "output_dir": masks})
        evaluator, network = map(parser.get_parsed_content, ("evaluator", "network"))
        device = torch.device(parser.get_parsed_content("device"))
        for step in STEPS:
            setattr(network, step, _timed(getattr(network, step), step, booked, device))
        since = [time.perf_counter(), time.process_time()]

        def split(title: str) -> None:
            """Note the seconds since the last split."""
            now = [time.perf_counter(), time.process_time()]
            total, processor = (new - old for new, old in zip(now, since, strict=True))
            rest = total - sum(booked.values())
            found = [*(booked[step] for step in STEPS), rest, total, processor]
            columns[title] = dict(zip(ROWS, found, strict=True))
            booked.clear()
            since[:] = now

        @evaluator.on(Events.ITERATION_STARTED(once=1))
        def begin() -> None:
            split("before")

        @evaluator.on(Events.ITERATION_COMPLETED)
        def end() -> None:
            split(Path(evaluator.state.output["image"]).name)

        evaluator.run()
    rows = [[row, *(f"{found[row]:.2f}" for found in columns.values())] for row in ROWS]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mebibytes = peak / (2**20 if sys.platform == "darwin" else 2**10)
    facts = {"peak resident memory": f"{mebibytes:.0f} MiB", **surroundings(device)}
    if device.type == "cuda":
        facts["peak on the GPU"] = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"
    said = "; ".join(f"{key}: {value}" for key, value in facts.items())
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


def _prepared(root: Path, cases: int, knobs: dict[str, Any]) -> ConfigParser:
    """The parsed config after its initialisation: weights are loaded, nothing was segmented."""
    path = root / "configs" / "inference.json"
    if not path.is_file():
        raise DataError(f"{root}: no bundle there (it has no configs/inference.json); name one.")
    unknown = sorted(set(knobs) - set(ConfigParser.load_config_file(str(path))))
    if unknown:
        raise DataError(f"{root}: the bundle has no knob {', '.join(unknown)}; see its docs.")
    workflow = ConfigWorkflow(
        workflow_type="inference",
        config_file=str(path),
        meta_file=str(path.with_name("metadata.json")),
        logging_file=False,
        bundle_root=str(root),
        **{"dataset#data": f"$@data[:{cases}]", "evaluator#progress": False, **knobs},
    )
    workflow.initialize()
    return workflow.parser


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where there is nothing to measure."""
    return command(measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
