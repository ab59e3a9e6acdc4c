"""Time and memory of segmenting a folder, per stage and per scan.

    python tools/benchmark_inference.py bundles/ssl_alpnet --support_dir labelled
        --dataset_dir scans --output_dir timing --threads 2

Runs each bundle's inference in a process of its own. The first scan warms up; the second is what a
scan of a folder costs. The output folder gets inference.md and inference.csv.
"""

import argparse
import multiprocessing
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.inference_benchmark import (
    BundleCost,
    csv_text,
    markdown_table,
    measure_bundle,
)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; return 0, or 1 where a bundle or scan cannot be used."""
    options = _options(arguments)
    try:
        knobs = _knobs(options)
        costs = [_measured(root, options, knobs) for root in options.bundles]
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    text = markdown_table(costs)
    print(text, end="")
    atomic_write_text(options.output_dir / "inference.md", text)
    atomic_write_text(options.output_dir / "inference.csv", csv_text(costs))
    return 0


def _measured(root: Path, options: argparse.Namespace, knobs: dict[str, Any]) -> BundleCost:
    """Measure in a fresh process: its memory is that of this bundle alone."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(options.threads)) if options.threads else {}
    # libraries read these when they are loaded, in the process to come
    os.environ.update(variables)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_quiet) as process:
        task = process.submit(
            measure_bundle, root, options.output_dir, options.cases, knobs, options.threads
        )
        return task.result()


def _quiet() -> None:
    warnings.simplefilter("ignore")


def _knobs(options: argparse.Namespace) -> dict[str, Any]:
    """The knobs of `inference.json` that the options set."""
    knobs: dict[str, Any] = {"dataset_dir": str(options.dataset_dir)}
    if options.support_dir:
        knobs["support_dir"] = str(options.support_dir)
    for name in ("support_ids", "structures"):
        text = getattr(options, name)
        if text is not None:
            knobs[name] = _yaml(text, f"--{name}")
    own = _yaml(options.knobs, "--knobs") if options.knobs else {}
    if not isinstance(own, dict):
        raise DataError(f"--knobs: expected {{knob: value}}, got {options.knobs}.")
    return {**knobs, **own}


def _yaml(text: str, option: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{option}: {text} cannot be read ({error}); check the quotes.") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of scans")
    parser.add_argument(
        "--support_dir", type=Path, help="labelled scans; default: the bundle's pack"
    )
    parser.add_argument("--support_ids", help="which of them: 1 or [1, 10]")
    parser.add_argument("--structures", help="values, names, or {name: value}")
    parser.add_argument("--cases", type=_positive, default=3, help="scans to segment (3)")
    parser.add_argument("--threads", type=_positive, help="threads of torch and numpy")
    parser.add_argument("--knobs", help="other knobs of inference.json: {amp: true}")
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
