"""One command that trains all folds of a bundle: a loop over its training command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fsmis_components
from fsmis_components.data.atomic import atomic_write, atomic_write_text
from fsmis_components.data.cases import Case, find_cases
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.training_cases import RULES, excluded, fold_split, shown_structures
from fsmis_components.data.volumes import load_image
from fsmis_components.episodes.checkpoint import has_state, load_state
from fsmis_components.evaluation.records import code_hash, note_once, read_json, surroundings
from fsmis_components.evaluation.subjects.base import Group, group_suffix

FORMAT = 1
NUM_FOLDS = 5
# knobs that the training of folds gives itself
_GIVEN = (
    *("bundle_root", "dataset_dir", "output_dir", "cache_dir", "fold"),
    *("setting", "test_structures", "exclude_rule"),
)
Stages = Sequence[Mapping[str, Any]]


def train_folds(
    bundle_root: str | Path,
    dataset_dir: str | Path,
    output_dir: str | Path,
    folds: Sequence[int] | None = None,
    setting: int = 1,
    exclude_rule: str = "any",
    structure_groups: Sequence[Sequence[int]] | None = None,
    plan: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[str]:
    """Train the folds of a bundle one after the other, in each fold the groups of structures.

    The output folder gets `training.json` and a folder per fold and group, "fold0" or, in Setting
    2, "fold0_2-3": the output of each stage, `model.pt` (the last weights) and `finished.json`,
    in Setting 2 with the number of slices that were dropped. A finished fold is not trained again,
    an interrupted one goes on where it was, and one that fails does not stop the others.

    Args:
        bundle_root: the bundle's folder.
        dataset_dir: the scans; for Setting 2 with labels.
        output_dir: made when missing; that another training lies there is a `DataError`.
        folds: numbers from 0; None: all five.
        setting: 1, or 2: slices that show structures of the group are not trained on.
        exclude_rule: Setting 2: "any" or "all", see `excluded`.
        structure_groups: Setting 2: label values that are left out together, one model for each.
        plan: see `read_plan`.
        overrides: knobs of `train.json` for all stages; `initial_weights` for the first, where
            "{fold}" stands for the name of the fold's folder: of weights that each fold has.

    Returns:
        Why folds failed, a sentence each.
    """
    if setting not in (1, 2) or exclude_rule not in RULES:
        raise DataError(
            "setting and exclude_rule: expected 1 or 2, and any or all, got "
            f"{setting!r} and {exclude_rule!r}."
        )
    if (setting == 2) != bool(structure_groups) or not all(structure_groups or []):
        raise DataError(
            "structure_groups: Setting 2 needs the label values to leave out, such as 2,3 and 1,4, "
            "and Setting 1 takes none; correct one of the two."
        )
    root, output, data = (
        Path(folder).expanduser().absolute() for folder in (bundle_root, output_dir, dataset_dir)
    )
    groups: list[Group] = [tuple(map(int, group)) for group in structure_groups or []] or [None]
    stages, overrides = read_plan(root, plan, overrides), dict(overrides or {})
    cases = find_cases(data, labels="required" if setting == 2 else "never", section="training")
    numbers = sorted(set(range(NUM_FOLDS) if folds is None else folds))
    splits = {fold: fold_split(cases, fold, NUM_FOLDS) for fold in numbers}
    description = {
        "format": FORMAT,
        "bundle": root.resolve().name,
        "setting": "1" if setting == 1 else f"2-{exclude_rule}",
        "groups": groups,
        "dataset": data.resolve().name,
        "plan": {"stages": stages},
        "overrides": overrides,
    }
    note_once(output / "training.json", description, results=output.glob("*/stage*"))
    shared = {"dataset_dir": str(data), "cache_dir": str(output / "pseudo_labels")}
    config = {**_train_config(root), **stages[0], **overrides}
    reading = {key: config[key] for key in ("slice_axis", "ignore_spacing") if key in config}
    failures = []
    for fold, group in product(numbers, groups):
        folder = output / fold_folder(fold, group)
        knobs: dict[str, Any] = {**shared, "fold": fold}
        facts: dict[str, Any] = {}
        try:
            if finished_facts(folder) is not None:
                tqdm.write(f"{folder.name}: is finished")
                continue
            if group is not None:
                rule, train = exclude_rule, splits[fold].train
                knobs |= {"setting": 2, "test_structures": list(group), "exclude_rule": rule}
                facts["dropped_slices"] = dropped_slices(train, group, rule, **reading)
            _train_stages(root, folder, knobs, stages, overrides, facts)
            tqdm.write(f"{folder.name}: finished")
        except DataError as error:
            failures.append(f"{folder.name}: {error}")
            tqdm.write(failures[-1])
    return failures


def _train_stages(
    root: Path,
    folder: Path,
    knobs: Mapping[str, Any],
    stages: Stages,
    overrides: Mapping[str, Any],
    facts: dict[str, Any],
) -> None:
    """Bring the stages of a fold to their end, copy the last weights, and note its facts."""
    last, seconds = Path(), 0.0
    for number, stage in enumerate(stages, start=1):
        title = f"{folder.name} stage {number} of {len(stages)}"
        output = folder / f"stage{number}"
        given = {**knobs, "output_dir": str(output), **stage, **overrides}
        if number > 1:
            given["initial_weights"] = str(last)
        elif "initial_weights" in given:
            given["initial_weights"] = given["initial_weights"].replace("{fold}", folder.name)
            if Path(given["initial_weights"]).is_file():
                facts["initial_weights"] = file_hash(Path(given["initial_weights"]))
        epoch, epochs, took = _progress(output)
        if epoch < epochs:
            tqdm.write(f"{title}: {f'goes on after epoch {epoch}' if epoch else 'begins'}")
            run_training(root, given)
            epoch, epochs, took = _progress(output)
        if epoch < epochs:
            raise DataError(f"{title} ended before its last epoch; give the command again.")
        last, seconds = output / "models" / "model.pt", seconds + took
    if not last.is_file():
        raise DataError(
            f"{last}: missing, though all epochs are done; delete {folder} to train the fold anew."
        )
    with writing(folder):
        model = atomic_write(folder / "model.pt", lambda path: shutil.copyfile(last, path))
        done = {"format": FORMAT, "sha256": file_hash(model), "seconds": round(seconds, 1)}
        content = {**done, "code": code_hash(), **surroundings(), **facts}
        atomic_write_text(folder / "finished.json", json.dumps(content, indent=2) + "\n")


def fold_folder(fold: int, group: Group) -> str:
    """Name of the folder of a fold's training: "fold0", in Setting 2 "fold0_2-3"."""
    return f"fold{fold}{group_suffix(group)}"


def read_plan(
    bundle_root: Path,
    plan: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Stages:
    """Read and check the plan of a bundle: the knobs of trainings that follow each other.

    Args:
        bundle_root: the bundle's folder.
        plan: `{"stages": [{knob: value}, ...]}` or a JSON file of it; None: the bundle's
            `configs/fold_training.json`, or one stage as in `train.json` where it has none.
        overrides: knobs of all stages.

    Raises:
        DataError: no bundle there, no such plan, or a knob that the config does not have.
    """
    config = _train_config(bundle_root)
    shipped = bundle_root / "configs" / "fold_training.json"
    if plan is None:
        plan = shipped if shipped.is_file() else {"stages": [{}]}
    source = "plan" if isinstance(plan, Mapping) else str(plan)
    content = plan if isinstance(plan, Mapping) else read_json(Path(plan), "name a plan")
    stages = content.get("stages")
    listed = isinstance(stages, Sequence) and all(isinstance(stage, Mapping) for stage in stages)
    if not stages or not listed or set(content) != {"stages"}:
        raise DataError(f'{source}: expected {{"stages": [{{knob: value}}, ...]}}; see the docs.')
    for number, knobs in enumerate([*stages, overrides or {}], start=1):
        title = f"{source}: stage {number}" if number <= len(stages) else "overrides"
        # later stages begin from the one before
        given = (*_GIVEN, "initial_weights") if 1 < number <= len(stages) else _GIVEN
        for name in knobs:
            if name in given:
                raise DataError(f"{title}: {name} is set by the training of folds; leave it out.")
            if name not in config:
                raise DataError(f"{title}: train.json has no knob {name}; see its top.")
    return stages


def _train_config(bundle_root: Path) -> dict[str, Any]:
    return read_json(bundle_root / "configs" / "train.json", "name the folder of a bundle")


def run_training(bundle_root: Path, knobs: Mapping[str, Any]) -> None:
    """Train a bundle by its command, in a process of its own, so that memory and seeds are clean.

    It uses the code that runs here, whatever lies in the working folder. That it failed is a
    `DataError`; what it said is on the screen.
    """
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(bundle_root / "configs" / "train.json")]
    command += ["--bundle_root", str(bundle_root)]
    # quoted: the command line would take a folder that is called 7 for a number
    command += [word for name, value in knobs.items() for word in (f"--{name}", repr(value))]
    paths = [str(Path(fsmis_components.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    python_path = os.pathsep.join(filter(None, paths))
    environment = {**os.environ, "PYTHONPATH": python_path, "PYTHONSAFEPATH": "1"}
    if code := subprocess.run(command, env=environment).returncode:
        raise DataError(
            f"the training ended with {code} (its last line says why; -9: too little memory); give "
            "the same command to go on."
        )


def dropped_slices(
    cases: Sequence[Case], exclude_labels: Sequence[int], exclude_rule: str, **reading: Any
) -> dict[str, int]:
    """Count the slices of labelled scans that a training leaves out: "dropped", and "of" how many.

    Args:
        cases: labelled scans; one without a label that can be read is a `DataError`.
        exclude_labels: values of the structures that are left out.
        exclude_rule: "any" or "all", see `excluded`.
        reading: `slice_axis` and `ignore_spacing` of `choose_slice_grid`.
    """
    dropped = []
    for case in cases:
        volume = load_image(case.image)
        grid = choose_slice_grid(volume, **reading)
        shown = shown_structures(case, volume, grid, exclude_labels)  # (values, D)
        dropped.append(excluded(shown, exclude_rule))
    slices = np.concatenate(dropped)
    return {"dropped": int(slices.sum()), "of": len(slices)}


def finished_facts(folder: Path) -> dict[str, Any] | None:
    """What `finished.json` of a fold says; None where the fold is not finished.

    That it is damaged, or names other weights, is a `DataError`.
    """
    path = folder / "finished.json"
    if not path.is_file():
        return None
    facts = read_json(path, "delete it to finish the fold anew")
    if file_hash(folder / "model.pt") != facts.get("sha256"):
        raise DataError(
            f"{folder / 'model.pt'}: not the weights that finished.json names; copy them "
            "again from where they came, or delete finished.json to take the last stage's."
        )
    return facts


def _progress(stage: Path) -> tuple[int, int, float]:
    """Epochs of a stage that are done, all of them, and seconds, by its last checkpoint."""
    folder = stage / "training_state"
    if not has_state(folder):
        return 0, 1, 0.0
    state = load_state(folder)
    return state["epoch"], state["settings"]["epochs"], state["seconds"]
