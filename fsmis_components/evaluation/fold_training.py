"""One command that trains all folds of a bundle, in pieces where time is short."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.exclusion import RULES
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.folds import FoldSplit, fold_split
from fsmis_components.evaluation.excluded_slices import excluded_slices, write_excluded_slices
from fsmis_components.evaluation.subjects.base import Group
from fsmis_components.evaluation.subjects.bundle import fold_folder
from fsmis_components.evaluation.trained_fold import TrainedFold
from fsmis_components.evaluation.training_plan import TrainingPlan, read_plan
from fsmis_components.evaluation.training_process import run_training, training_command

FORMAT = 1
NUM_FOLDS = 5
_SHORTEST = 1.0  # minutes; with less left no training is started


def train_folds(
    bundle_root: str | Path,
    dataset_dir: str | Path,
    output_dir: str | Path,
    folds: Sequence[int] | None = None,
    setting: int = 1,
    exclude_rule: str = "any",
    structure_groups: Sequence[Sequence[int]] | None = None,
    plan: str | Path | Mapping[str, Any] | None = None,
    minutes: float | None = None,
    overrides: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    say: Callable[[str], object] = tqdm.write,
) -> list[str]:
    """Train the folds of a bundle one after the other, in each fold the groups of structures.

    The output folder gets `training.json` and a folder per fold and group, "fold0" or, in Setting
    2, "fold0_2-3": the output of each stage, `model.pt` (the last weights), `finished.json` and,
    in Setting 2, `dropped_slices.csv`. A finished fold is not trained again, an interrupted one
    goes on where it was, and one that fails does not stop the others.

    Args:
        bundle_root: the bundle's folder.
        dataset_dir: the scans; for Setting 2 with labels.
        output_dir: made when missing.
        folds: numbers from 0; None: all five.
        setting: 1, or 2: slices that show structures of the group are not trained on.
        exclude_rule: Setting 2: "any" or "all", see `excluded`.
        structure_groups: Setting 2: label values that are left out together, one model for each.
        plan: see `read_plan`.
        minutes: limit of this call, passed by one epoch at most; None: there is none.
        overrides: knobs of `train.json` for all stages; `initial_weights` for the first, where
            "{fold}" stands for the name of the fold's folder, so that each fold can begin with the
            weights of its own that another bundle was trained to.
        cache_dir: pseudo-labels, which trainings may share; None: a folder in the output.
        say: is told what begins and how long all will take.

    Returns:
        Why folds failed, a sentence each; folds that are left for want of time are no failures.

    Raises:
        DataError: arguments or the dataset are unusable, or another training lies in the folder.
    """
    _check(setting, exclude_rule, structure_groups, minutes)
    root, output, data = (
        Path(folder).expanduser().absolute() for folder in (bundle_root, output_dir, dataset_dir)
    )
    groups: list[Group] = [tuple(map(int, group)) for group in structure_groups or []] or [None]
    stages = read_plan(root, plan, overrides)
    stages.require(["dataset_dir", "output_dir", "fold", "epochs"])
    stages.require(["setting", "test_structures", "exclude_rule"] if setting == 2 else [])
    stages.require(["initial_weights"] if stages.num_stages > 1 else [])
    stages.require(["max_minutes"] if minutes is not None else [])
    cases = find_cases(data, labels="required" if setting == 2 else "never", section="training")
    jobs = [
        _Job(
            TrainedFold(output / fold_folder(fold, group), stages.num_stages),
            fold,
            group,
            fold_split(cases, fold, NUM_FOLDS),
        )
        for fold in sorted(set(range(NUM_FOLDS) if folds is None else folds))
        for group in groups
    ]
    description = {
        "format": FORMAT,
        "bundle": root.resolve().name,
        "setting": "1" if setting == 1 else f"2-{exclude_rule}",
        "groups": groups,
        "dataset": data.resolve().name,
        "plan": {"stages": stages.stages},
        "overrides": stages.overrides,
    }
    _open_folder(output, description)
    cache = Path(cache_dir or output / "pseudo_labels").expanduser().absolute()
    return _FoldTraining(root, data, cache, stages, exclude_rule, minutes, say).run(jobs)


@dataclass
class _Job:
    """A fold to train, and what is known of its cost."""

    record: TrainedFold
    fold: int
    group: Group
    split: FoldSplit
    episodes: float = 0.0  # that are done
    seconds: float = 0.0  # that they took

    @property
    def name(self) -> str:
        return self.record.folder.name


class _FoldTraining:
    """Runs the stages of folds as commands and keeps count of the time."""

    def __init__(
        self,
        bundle_root: Path,
        dataset_dir: Path,
        cache_dir: Path,
        plan: TrainingPlan,
        exclude_rule: str,
        minutes: float | None,
        say: Callable[[str], object],
    ) -> None:
        self.bundle_root = bundle_root
        self.dataset_dir = dataset_dir
        self.cache_dir = cache_dir
        self.plan = plan
        self.exclude_rule = exclude_rule
        self.deadline = None if minutes is None else monotonic() + 60 * minutes
        self.over = False
        self.say = say
        self.total = sum(plan.episodes(stage) for stage in range(plan.num_stages))

    def run(self, jobs: Sequence[_Job]) -> list[str]:
        """Train all that is not finished; return why folds failed."""
        failures: list[str] = []
        # first a look at all folds: what they took says how long the others will take
        self.jobs = [job for job in jobs if self._tried(self._look, job, failures) is not None]
        left = []
        for job in list(self.jobs):
            done = self._tried(self._train, job, failures)
            if done is None:
                self.jobs.remove(job)
            elif not done:
                left.append(job.name)
        if left:
            self.say(
                f"the time is over; left: {', '.join(left)} ({self._outlook()}); give the same "
                "command to go on"
            )
        return failures

    def _tried(self, action: Callable[[_Job], bool], job: _Job, failures: list[str]) -> bool | None:
        """The result of an action; None where it failed, which is said and noted."""
        try:
            return action(job)
        except DataError as error:
            failures.append(f"{job.name}: {error}")
            self.say(failures[-1])
            return None

    def _look(self, job: _Job) -> bool:
        """Take up what is done of a fold; return whether it is finished."""
        facts = job.record.finished()
        if facts is not None:
            job.episodes, job.seconds = self.total, facts["seconds"]
            return True
        stages = [job.record.progress(stage) for stage in range(self.plan.num_stages)]
        job.seconds = sum(stage.seconds for stage in stages)
        job.episodes = sum(
            self.plan.episodes(number) * stage.epoch / stage.epochs
            for number, stage in enumerate(stages)
        )
        return False

    def _train(self, job: _Job) -> bool:
        """Bring a fold to its end; return False where the time is over before."""
        if job.record.finished() is not None:
            self.say(f"{job.name}: is finished")
            return True
        if self._is_late():
            return False
        facts: dict[str, Any] = {}
        if job.group is not None:
            facts["dropped_slices"] = self._list_dropped(job, job.group)
        start = Path(self._knobs(job, 0).get("initial_weights", ""))
        if start.is_file():
            facts["initial_weights"] = file_hash(start)
        for stage in range(self.plan.num_stages):
            title = f"{job.name} stage {stage + 1} of {self.plan.num_stages}"
            before = job.record.progress(stage)
            if before.done:
                continue
            if self._is_late():
                return False
            begins = f"goes on after epoch {before.epoch}" if before.epoch else "begins"
            self.say(f"{title}: {begins}; {self._outlook()}")
            run_training(training_command(self.bundle_root, self._knobs(job, stage)))
            self._look(job)
            after = job.record.progress(stage)
            if not after.done and self.deadline is None:
                raise DataError(f"{title} ended before its last epoch; give the command again.")
            if not after.done:
                self.over = True
                return False
            self.say(f"{title}: done in {_duration(after.seconds)}")
        job.record.finish(facts)
        self.say(f"{job.name}: finished; {self._outlook()}")
        return True

    def _is_late(self) -> bool:
        if self.deadline is not None and self.deadline - monotonic() < 60 * _SHORTEST:
            self.over = True
        return self.over

    def _knobs(self, job: _Job, stage: int) -> dict[str, Any]:
        knobs: dict[str, Any] = {
            "dataset_dir": str(self.dataset_dir),
            "fold": job.fold,
            "output_dir": str(job.record.stage_folder(stage)),
            **self.plan.changes(stage),
        }
        if "cache_dir" in self.plan.config:  # folds share the pseudo-labels of their scans
            knobs["cache_dir"] = str(self.cache_dir)
        if job.group is not None:
            knobs["setting"] = 2
            knobs["test_structures"] = list(job.group)
            knobs["exclude_rule"] = self.exclude_rule
        if stage > 0:
            knobs["initial_weights"] = str(job.record.weights(stage - 1))
        elif "initial_weights" in knobs:
            knobs["initial_weights"] = knobs["initial_weights"].replace("{fold}", job.name)
        if self.deadline is not None:
            knobs["max_minutes"] = round((self.deadline - monotonic()) / 60, 2)
        return knobs

    def _list_dropped(self, job: _Job, group: Sequence[int]) -> dict[str, int]:
        knobs = self.plan.knobs(0)
        found = excluded_slices(
            job.split.train,
            group,
            self.exclude_rule,
            slice_axis=knobs.get("slice_axis", "auto"),
            ignore_spacing=knobs.get("ignore_spacing", False),
        )
        write_excluded_slices(job.record.folder / "dropped_slices.csv", found)
        return found.summary

    def _outlook(self) -> str:
        """How long the rest will take, judged by what is done."""
        done = sum(job.episodes for job in self.jobs)
        seconds = sum(job.seconds for job in self.jobs)
        left = self.total * len(self.jobs) - done
        if not done:
            return "how long all will take is known after the first stage"
        if left <= 0:
            return "nothing is left"
        return f"about {_duration(left * seconds / done)} of training are left"


def _check(
    setting: int,
    exclude_rule: str,
    structure_groups: Sequence[Sequence[int]] | None,
    minutes: float | None,
) -> None:
    if setting not in (1, 2):
        raise DataError(f"setting: expected 1 or 2, got {setting!r}.")
    if exclude_rule not in RULES:
        raise DataError(f"exclude_rule: expected any or all, got {exclude_rule!r}.")
    if (setting == 2) != bool(structure_groups) or not all(structure_groups or []):
        raise DataError(
            "structure_groups: Setting 2 needs the label values to leave out, such as 2,3 and 1,4, "
            "and Setting 1 takes none; correct one of the two."
        )
    if minutes is not None and not minutes >= _SHORTEST:
        raise DataError(f"minutes: expected at least {_SHORTEST:g}, got {minutes}.")


def _open_folder(output: Path, description: Mapping[str, Any]) -> None:
    """Note what is trained in a folder, or refuse to mix two trainings."""
    wanted = json.loads(json.dumps(description))
    path = output / "training.json"
    if not path.is_file():
        try:
            atomic_write_text(path, json.dumps(wanted, indent=2) + "\n")
        except OSError as error:
            raise unwritable(output, error) from error
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); choose another --output_dir.") from error
    if changed:
        raise DataError(
            f"{output}: holds a training that differs in {', '.join(changed)}; choose another "
            "--output_dir (nothing was overwritten)."
        )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
