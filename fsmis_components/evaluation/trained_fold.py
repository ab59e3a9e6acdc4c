"""The folder in which a fold is trained: how far its stages are, and when it is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write, atomic_write_text
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.json_text import parse_json
from fsmis_components.data.weights import has_state, load_state
from fsmis_components.evaluation.provenance import code_hash, surroundings

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        epoch: epochs that are done.
        epochs: epochs in all; at least 1.
        seconds: wall-clock time of the epochs that are done.
    """

    epoch: int = 0
    epochs: int = 1
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether no epoch is left."""
        return self.epoch >= self.epochs


@dataclass(frozen=True)
class TrainedFold:
    """A fold's folder: the stages' outputs, `model.pt` and `finished.json` when all are done.

    Attributes:
        folder: of the fold.
        num_stages: trainings that follow each other.
    """

    folder: Path
    num_stages: int

    def stage_folder(self, stage: int) -> Path:
        """Output folder of a stage, from 0."""
        return self.folder / f"stage{stage + 1}"

    def weights(self, stage: int) -> Path:
        """The last weights of a stage."""
        return self.stage_folder(stage) / "models" / "model.pt"

    def progress(self, stage: int) -> Progress:
        """How far a stage is, by its last checkpoint.

        Raises:
            DataError: the checkpoint is damaged.
        """
        folder = self.stage_folder(stage) / "training_state"
        if not has_state(folder):
            return Progress()
        state = load_state(folder)
        return Progress(state["epoch"], state["settings"]["epochs"], state["seconds"])

    def finished(self) -> dict[str, Any] | None:
        """What `finished.json` says, see `finished_facts`."""
        return finished_facts(self.folder)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Copy the last weights of the last stage, then note that the fold is finished.

        Args:
            facts: noted beside the hash of the weights, the time and the versions.

        Raises:
            DataError: the weights are missing, or the folder cannot be written.
        """
        last = self.weights(self.num_stages - 1)
        if not last.is_file():
            raise DataError(
                f"{last}: missing, though all epochs are done; delete {self.folder} to train the "
                "fold anew."
            )
        seconds = sum(self.progress(stage).seconds for stage in range(self.num_stages))
        target = self.folder / "model.pt"
        try:
            atomic_write(target, lambda unfinished: shutil.copyfile(last, unfinished))
            content = {
                "format": FORMAT,
                "sha256": file_hash(target),
                "seconds": round(seconds, 1),
                "code": code_hash(),
                **surroundings(),
                **facts,
            }
            text = json.dumps(content, indent=2) + "\n"
            atomic_write_text(self.folder / "finished.json", text)
        except OSError as error:
            raise unwritable(self.folder, error) from error


def finished_facts(folder: Path) -> dict[str, Any] | None:
    """What `finished.json` of a fold says; None where the fold is not finished.

    Raises:
        DataError: it is damaged, or the weights are not those that it names.
    """
    path = folder / "finished.json"
    if not path.is_file():
        return None
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
        expected, _ = str(facts["sha256"]), float(facts["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it to finish the fold anew.") from error
    if file_hash(folder / "model.pt") != expected:
        raise DataError(
            f"{folder / 'model.pt'}: not the weights that finished.json names; copy them "
            "again from where they came, or delete finished.json to take the last stage's."
        )
    return facts
