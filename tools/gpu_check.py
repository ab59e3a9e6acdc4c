"""All that is worth knowing of a GPU, in under eight minutes: do its kernels agree, how fast is it.

    python tools/gpu_check.py --output gpu
    python tools/gpu_check.py --output trial --small      (a CPU in some minutes)

Made-up scans serve. Each step has a limit and a log of its own; gpu_check.md is written after each.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from fsmis_components.commands.command_line import command
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.records import surroundings
from fsmis_components.evaluation.tables import pipe_table
from phantom import write_dataset

REPOSITORY = Path(__file__).resolve().parent.parent


class Step(NamedTuple):
    """A command and what it tells."""

    name: str
    words: list[str]
    seconds: float  # at most
    told: Callable[[float], str]  # of the seconds that it took


def check(output: Path, small: bool = False) -> list[str]:
    """Compare kernels with the reference, then time similarity, inference, fit and training.

    Args:
        output: new folder for the table, logs and results.
        small: few and small scans, for a machine without a GPU.

    Returns:
        The steps that failed or ran past their limit, a sentence each.
    """
    output = output.absolute()
    if output.exists():
        raise DataError(f"{output}: is there already; name another --output.")
    shape = (96, 80, 12) if small else (256, 224, 36)
    scans = write_dataset(output / "scans", count=5 if small else 12, seed=1, shape=shape)
    labelled = output / "labelled"
    labelled.mkdir()
    for kind in ("image", "label"):
        (scans / f"{kind}_1.nii.gz").rename(labelled / f"{kind}_1.nii.gz")
    for label in scans.glob("label_*"):
        label.unlink()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = "; ".join(f"{key}: {value}" for key, value in surroundings(device).items())
    failures, rows = [], []
    for step in _steps(output, scans, labelled, device, small, shape[2]):
        print(f"{step.name} ...", flush=True)
        limit = step.seconds * (20 if small else 1)
        log, start = output / f"{step.name}.log", time.monotonic()
        wrong = _run(step.words, log, limit)
        if wrong:
            failures.append(f"{step.name}: {wrong}, see {log}")
        took = time.monotonic() - start
        rows.append([step.name, f"{took:.0f}", wrong or step.told(took)])
        table = pipe_table(("step", "seconds", "result"), rows, {0, 2})
        atomic_write_text(output / "gpu_check.md", f"{table}\n\n{facts}\n")
    print((output / "gpu_check.md").read_text(), end="")
    return failures


def _run(words: list[str], log: Path, limit: float) -> str:
    """Run a command, and end it with all that it started; what was wrong, or nothing."""
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"took more than {limit:g} s"
    return f"ended with {status}" if status else ""


def _steps(
    output: Path, scans: Path, labelled: Path, device: torch.device, small: bool, slices: int
) -> list[Step]:
    run = ["-m", "fsmis_components"]
    places = [str(scans), "--labelled", str(labelled), "--amp", "auto"]
    episodes = 8 if small else 400
    training = ["train", str(scans), "--output", str(output / "trained"), "--epochs", "1"]
    sizes = ["--dtype", "bfloat16", "--prototypes", *(["16"] if small else ["1024", "4096"])]
    sizes += ["--side", "8", "--seconds", "0.01"] if small else ["--seconds", "0.5"]

    def inference(_: float) -> str:
        with (output / "masks" / "cases.csv").open(newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
        later = seconds[1:]  # the first one warms up
        return f"{slices * len(later) / sum(later):.1f} slices/s, writing and pictures included"

    kernels = ["-m", "pytest", "-q", "tests/ops", "--device", device.type, "-p", "no:cacheprovider"]
    tool = [str(REPOSITORY / "tools" / "benchmark_similarity.py")]
    shape = ["--half_steps", "10", "--final_steps", "10"] if small else ["--minutes", "2"]
    segment = [*run, "segment", *places, "--output", str(output / "masks")]
    fit = [*run, "fit", *places, "--output", str(output / "fitted"), *shape]
    train = [*run, *training, "--episodes_per_epoch", str(episodes)]
    return [
        Step("kernels", kernels, 120, lambda _: "agree with the reference"),
        Step("similarity", [*tool, *sizes], 60, lambda _: f"see {output / 'similarity.log'}"),
        Step("inference", segment, 60, inference),
        Step("fit", fit, 150, lambda took: f"{took:.0f} s in all"),
        Step("training", train, 60, lambda t: f"{episodes / t:.1f} episodes/s, loading included"),
    ]


if __name__ == "__main__":
    sys.exit(command(check))
