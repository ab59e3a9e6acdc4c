"""Segment the first scans of a folder by a bundle, as its inference command does, and time it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import load_image
from fsmis_components.evaluation.inference_benchmark.hooks import hooked
from fsmis_components.evaluation.inference_benchmark.stage_clock import StageClock, StageCost
from fsmis_components.evaluation.provenance import surroundings

Stages = dict[str, StageCost]


@dataclass(frozen=True)
class BundleCost:
    """What a folder run cost.

    Attributes:
        bundle: name of its folder.
        before: stages before the first scan.
        scans: title (name and voxels) and stages of each scan, in order.
        facts: structures, machine, threads and versions.
    """

    bundle: str
    before: Stages
    scans: list[tuple[str, Stages]]
    facts: dict[str, Any]


def measure_bundle(
    root: Path, folder: Path, cases: int, knobs: Mapping[str, Any], threads: int | None = None
) -> BundleCost:
    """Run and measure; the masks are deleted again.

    Peaks of memory mean something only where nothing ran in this process before.

    Args:
        root: the bundle's folder.
        folder: masks are written into a folder of it for a while, so it says which disk is timed.
        cases: number of scans.
        knobs: of `inference.json`, "dataset_dir" and the support among them.
        threads: of PyTorch; None: its choice.

    Raises:
        DataError: no bundle there, no such knob, no support, or a scan that cannot be used.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".masks-") as masks:
        try:
            return _measure(root, cases, {**knobs, "output_dir": masks})
        except SystemExit as error:  # what the command's user reads as its last line
            raise DataError(str(error.code)) from error


def _measure(root: Path, cases: int, knobs: Mapping[str, Any]) -> BundleCost:
    parser = _prepared(root, cases, knobs)
    evaluator = parser.get_parsed_content("evaluator")
    network = parser.get_parsed_content("network")
    clock = StageClock(parser.get_parsed_content("device"))
    before: Stages = {}
    scans: list[tuple[str, Stages]] = []

    def begin() -> None:
        passed = clock.split()
        if not scans:
            before.update(passed)

    @evaluator.on(Events.ITERATION_COMPLETED)
    def end() -> None:
        stages = clock.split()
        image = Path(evaluator.state.output["image"])
        scans.append((_title(image), stages))
        clock.split()  # the title is no part of the run

    evaluator.add_event_handler(Events.ITERATION_STARTED, begin)
    clock.split()
    with hooked(clock, network):
        evaluator.run()
    pack = parser.get_parsed_content("inferer").resolve(network)
    names = [structure.name for structure in pack.structures]
    made_on = surroundings(clock.device)
    facts = {"structures": names, "working size": pack.grid.spatial_size, **made_on}
    return BundleCost(root.resolve().name, before, scans, facts)


def _prepared(root: Path, cases: int, knobs: Mapping[str, Any]) -> ConfigParser:
    """The parsed config after its initialisation: weights are loaded, nothing was segmented."""
    path = root / "configs" / "inference.json"
    if not path.is_file():
        raise DataError(f"{root}: no bundle there (it has no configs/inference.json); name one.")
    known = ConfigParser.load_config_file(str(path))
    unknown = sorted(set(knobs) - set(known))
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


def _title(image: Path) -> str:
    return f"{image.name} {' x '.join(map(str, load_image(image).shape))}"
