"""Time per stage and peak memory of segmenting a folder by a bundle, as its inference command does.

    python tools/benchmark_inference.py bundles/ssl_alpnet --support_dir labelled \
        --dataset_dir scans --threads 2

Prints a Markdown table in seconds. The first scan warms up; the second is what a scan of a folder
costs. The masks are deleted again. The code that is measured is the code that users run: public
functions are called through a clock. What no stage claims (normalising, arg max, table, report) is
"rest"; a stage within another belongs to that one.
"""

import functools
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from command import command, yaml_value
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.evaluation.provenance import surroundings
from fsmis_components.evaluation.tables import pipe_table
from fsmis_components.inferers import folder_evaluator, slab_store, volume_inferer
from fsmis_components.inferers.case_files import CaseFiles
from fsmis_components.inferers.expected_shapes import ExpectedShapes
from fsmis_components.inferers.slab_store import SlabStore
from fsmis_components.support import encode
from fsmis_components.support.source import SupportSource

# stage, the class or the module that calls the function by this name, the function
STAGES: list[tuple[str, Any, str]] = [
    ("support", SupportSource, "resolve"),
    ("read and check the scan", folder_evaluator, "load_image"),
    ("cut and resample slices", encode, "fit_normaliser"),
    ("cut and resample slices", SliceView, "slices"),
    ("keep features", SlabStore, "add"),
    ("keep features", slab_store, "read_slab"),
    ("match along z", volume_inferer, "slice_descriptors"),
    ("match along z", volume_inferer, "match_volume"),
    ("expected shapes", ExpectedShapes, "of"),
    ("clean up", volume_inferer, "cleaned"),
    ("resample back", SliceView, "to_native_logits"),
    ("write masks and picture", CaseFiles, "write"),
]
REST, SUM, PROCESSOR = "rest", "sum", "processor time, all threads"


class Clock:
    """Books seconds to the outermost stage that is running."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.booked: Counter[str] = Counter()
        self.running = False
        self.split()

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The function, its time booked to the stage."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            if self.running:
                return function(*arguments, **options)
            self.running, start = True, self._now()
            try:
                return function(*arguments, **options)
            finally:
                self.booked[stage] += self._now() - start
                self.running = False

        return call

    def split(self) -> dict[str, float]:
        """Seconds of each stage since the last split, with the rest, the sum and processor time."""
        now, processor = self._now(), time.process_time()
        found = dict(self.booked)
        if found:
            total = now - self.since
            found |= {REST: total - sum(found.values()), SUM: total}
            found[PROCESSOR] = processor - self.processor_since
        self.booked.clear()
        self.since, self.processor_since = now, processor
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":  # its work counts for the stage that asked for it
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(
    bundle: Path,
    dataset_dir: Path,
    support_dir: Path | None = None,
    cases: int = 3,
    threads: int | None = None,
    knobs: str | None = None,
) -> None:
    """Segment the first scans of a folder; print what each stage took.

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
    with tempfile.TemporaryDirectory() as masks:
        parser = _prepared(bundle, cases, {**own, "output_dir": masks})
        evaluator, network = map(parser.get_parsed_content, ("evaluator", "network"))
        clock = Clock(torch.device(parser.get_parsed_content("device")))
        columns = {"before": {}}

        @evaluator.on(Events.ITERATION_STARTED)
        def begin() -> None:
            columns["before"] = columns["before"] or clock.split()

        @evaluator.on(Events.ITERATION_COMPLETED)
        def end() -> None:
            columns[Path(evaluator.state.output["image"]).name] = clock.split()

        functions = [*STAGES, ("encode", network, "encode"), ("segment", network, "segment")]
        with ExitStack() as stack:
            for stage, owner, name in functions:
                timed = clock.timed(getattr(owner, name), stage)
                stack.enter_context(mock.patch.object(owner, name, timed))
            evaluator.run()
    print(_report(bundle.resolve().name, columns, functions, clock.device), end="")


def _report(
    bundle: str,
    columns: dict[str, dict[str, float]],
    functions: list[tuple[str, Any, str]],
    device: torch.device,
) -> str:
    stages = dict.fromkeys(stage for stage, _, _ in functions)
    rows = [
        [stage, *(f"{found[stage]:.2f}" if stage in found else "-" for found in columns.values())]
        for stage in (*stages, REST, SUM, PROCESSOR)
    ]
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    facts = {"peak resident memory": f"{peak:.0f} MiB", **surroundings(device)}
    if device.type == "cuda":
        facts["peak on the GPU"] = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"
    said = "; ".join(f"{key}: {value}" for key, value in facts.items())
    return f"## {bundle}\n\n{pipe_table(['stage', *columns], rows)}\n\n{said}\n"


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
