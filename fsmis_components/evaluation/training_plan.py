"""The plan by which a bundle's folds are trained: the knobs of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmis_components.data.errors import DataError
from fsmis_components.data.json_text import parse_json

# the training of folds gives these itself
_GIVEN = (
    *("bundle_root", "dataset_dir", "output_dir", "cache_dir", "fold"),
    *("setting", "test_structures", "exclude_rule", "max_minutes"),
)


@dataclass(frozen=True)
class TrainingPlan:
    """Trainings that follow each other, each from the weights of the one before.

    Attributes:
        config: the knobs of the bundle's `train.json`.
        stages: what each stage sets differently.
        overrides: what all stages set differently, before their own.
    """

    config: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]
    overrides: Mapping[str, Any]

    def changes(self, stage: int) -> dict[str, Any]:
        """Knobs of a stage, from 0, that differ from the config."""
        return {**self.stages[stage], **self.overrides}

    def knobs(self, stage: int) -> dict[str, Any]:
        """All knobs of a stage."""
        return {**self.config, **self.changes(stage)}

    def require(self, names: Iterable[str]) -> None:
        """Refuse a config that lacks a knob.

        Raises:
            DataError: it names the missing ones.
        """
        missing = [name for name in names if name not in self.config]
        if missing:
            raise DataError(
                f"train.json has no knob {', '.join(missing)}, which the training of folds sets; "
                "add it to the bundle."
            )

    @property
    def num_stages(self) -> int:
        """How many trainings follow each other."""
        return len(self.stages)

    def episodes(self, stage: int) -> int:
        """How long a stage is: episodes of all its epochs."""
        knobs = self.knobs(stage)
        return int(knobs["epochs"]) * int(knobs.get("episodes_per_epoch", 1))


def read_plan(
    bundle_root: Path,
    plan: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> TrainingPlan:
    """Read and check the plan of a bundle.

    Args:
        bundle_root: the bundle's folder.
        plan: `{"stages": [{knob: value}, ...]}` or a JSON file of it; None: the bundle's
            `configs/fold_training.json`, or one stage as in `train.json` where it has none.
        overrides: knobs of all stages.

    Raises:
        DataError: no bundle there, no such plan, or a knob that the config does not have.
    """
    config_path = bundle_root / "configs" / "train.json"
    config = read_json(config_path, "name the folder of a bundle")
    own = bundle_root / "configs" / "fold_training.json"
    if plan is None:
        source = str(own)
        content = read_json(own, "repair it") if own.is_file() else {"stages": [{}]}
    elif isinstance(plan, Mapping):
        source, content = "plan", dict(plan)
    else:
        source, content = str(plan), read_json(Path(plan), "name a plan")
    stages = content.get("stages")
    if not isinstance(stages, Sequence) or not stages or set(content) != {"stages"}:
        raise DataError(f'{source}: expected {{"stages": [{{knob: value}}, ...]}}; see the docs.')
    for number, stage in enumerate(stages, 1):
        _check_knobs(stage, config, f"{source}: stage {number}")
        if number > 1 and "initial_weights" in stage:
            raise DataError(
                f"{source}: stage {number} names initial_weights, but begins from the stage before "
                "it; leave them out."
            )
    _check_knobs(overrides or {}, config, "overrides")
    return TrainingPlan(config, tuple(stages), dict(overrides or {}))


def _check_knobs(knobs: Any, config: Mapping[str, Any], title: str) -> None:
    if not isinstance(knobs, Mapping):
        raise DataError(f"{title}: expected {{knob: value}}, got {knobs!r}.")
    for name in knobs:
        if name in _GIVEN:
            raise DataError(f"{title}: {name} is set by the training of folds; leave it out.")
        if name not in config:
            raise DataError(f"{title}: train.json has no knob {name}; see the top of that file.")


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: there is none; it ends with the advice.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {advice}.") from error
    except ValueError as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); {advice}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object; {advice}.")
    return content
