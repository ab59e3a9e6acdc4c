"""The folder of an ablation: which plan fills it, and which folds of which pieces are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.evaluation.ablation.plan import AblationPlan, Piece, read_ablation_plan
from fsmis_components.evaluation.results_folder import read_json

FORMAT = 1


@dataclass(frozen=True)
class FinishedFold:
    """A fold of a piece that is trained and evaluated.

    Attributes:
        variant: name of the variant.
        seed: seed of its training.
        fold: number of the fold.
        parameters: trainable numbers of the variant's network.
        weights: SHA-256 of the fold's `model.pt`.
        cases: names of the queries, all of them.
        training: what the training noted: seconds, code, versions.
        evaluation: code, versions and machine of the evaluation.
    """

    variant: str
    seed: int
    fold: int
    parameters: int
    weights: str
    cases: list[str]
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def piece(self) -> Piece:
        """The variant and the seed."""
        return Piece(self.variant, self.seed)


@dataclass(frozen=True)
class AblationFolder:
    """Where things lie; each fold of a piece has files of its own, so processes may share it.

    Attributes:
        root: the output folder.
    """

    root: Path

    @property
    def evaluated(self) -> Path:
        """Results folder of the benchmark, with all pieces as methods."""
        return self.root / "evaluated"

    def trained(self, piece: Piece) -> Path:
        """Folder of the trainings of a piece."""
        return self.root / "trained" / piece.folder

    def open(self, plan: AblationPlan, bundle: str, dataset: str) -> None:
        """Note the plan, or refuse to mix two ablations.

        A plan with more or fewer variants, seeds or folds may follow another one; what both have
        must be the same.

        Raises:
            DataError: the folder holds another ablation, or cannot be written.
        """
        wanted = {"format": FORMAT, "bundle": bundle, "dataset": dataset, **plan.to_dict()}
        if self._noted.is_file():
            there = read_json(self._noted, "choose another --output_dir")
            same = ("format", "bundle", "dataset", "stages", "structures", "common")
            changed = [key for key in same if there.get(key) != wanted[key]]
            known = there.get("variants", {})
            changed += [
                f"the knobs of {name}"
                for name, knobs in wanted["variants"].items()
                if known.get(name, knobs) != knobs
            ]
            if changed:
                raise DataError(
                    f"{self.root}: holds an ablation that differs in {', '.join(changed)}; choose "
                    "another --output_dir (nothing was overwritten)."
                )
            if there == wanted:
                return
        elif found := next((self.root / "finished").glob("*.json"), None):
            raise DataError(
                f"{found}: is there already, and no {self._noted.name} says what it belongs to; "
                "choose another --output_dir (nothing was overwritten)."
            )
        try:
            atomic_write_text(self._noted, json.dumps(wanted, indent=2) + "\n")
        except OSError as error:
            raise unwritable(self.root, error) from error

    def read_plan(self) -> tuple[AblationPlan, dict[str, Any]]:
        """The plan that was noted last, and the names of bundle and dataset.

        Raises:
            DataError: there is none.
        """
        if not self._noted.is_file():
            raise DataError(f"{self.root}: no ablation there; name the --output_dir of one.")
        content = read_json(self._noted)
        about = {key: content.pop(key, None) for key in ("format", "bundle", "dataset")}
        return read_ablation_plan(content), about

    def finish(self, fold: FinishedFold) -> None:
        """Note that a fold of a piece is finished."""
        path = self._marker(fold.piece, fold.fold)
        atomic_write_text(path, json.dumps(asdict(fold), indent=2) + "\n")

    def finished(self, piece: Piece, fold: int) -> FinishedFold | None:
        """What was noted of a finished fold of a piece; None where it is not finished.

        Raises:
            DataError: the note is damaged.
        """
        path = self._marker(piece, fold)
        if not path.is_file():
            return None
        try:
            return FinishedFold(**read_json(path))
        except TypeError as error:
            raise DataError(
                f"{path}: not the note of a finished fold; delete it to evaluate the fold anew."
            ) from error

    @property
    def _noted(self) -> Path:
        return self.root / "plan.json"

    def _marker(self, piece: Piece, fold: int) -> Path:
        return self.root / "finished" / f"{piece.folder}_fold{fold}.json"
