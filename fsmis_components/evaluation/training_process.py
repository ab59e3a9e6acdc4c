"""A training as a command of its own, so that memory and seeds are clean."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsmis_components
from fsmis_components.data.errors import DataError

_TAIL = 4000  # characters of the output in which the last line is looked for


def training_command(bundle_root: Path, knobs: Mapping[str, Any]) -> list[str]:
    """The command that trains a bundle, as a person would give it."""
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(bundle_root / "configs" / "train.json")]
    command += ["--bundle_root", str(bundle_root)]
    for name, value in knobs.items():
        # quoted: the command line would take a folder that is called 7 for a number
        command += [f"--{name}", repr(value)]
    return command


def run_training(command: list[str]) -> None:
    """Run a training by the code that runs here; what it prints is shown as it comes.

    Raises:
        DataError: it failed; the message is its last line.
    """
    tail = ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=_environment()) as process:
        try:
            while chunk := process.stderr.read1():  # type: ignore[union-attr]
                text = decoder.decode(chunk)
                sys.stderr.write(text)
                sys.stderr.flush()
                tail = (tail + text)[-_TAIL:]
        except BaseException:
            process.terminate()  # what it has saved stays whole
            raise
    if process.returncode < 0:
        raise DataError(
            f"the training was ended by signal {-process.returncode} (9: too little memory); give "
            "the same command to go on."
        )
    if process.returncode > 0:
        lines = tail.strip().splitlines()
        raise DataError(lines[-1] if lines else f"the training failed ({process.returncode}).")


def _environment() -> dict[str, str]:
    """The environment in which Python finds this package and no other of its name."""
    paths = [str(Path(fsmis_components.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",  # else -m looks in the working folder first
    }
