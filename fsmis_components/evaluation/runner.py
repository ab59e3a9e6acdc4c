"""The benchmark: every subject, fold, choice of support and case, kept as soon as it is done."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, failure_sentence
from fsmis_components.data.geometry import SliceView, choose_slice_grid
from fsmis_components.data.volumes import save_mask
from fsmis_components.evaluation.protocols import (
    Ep1Rule,
    Task,
    answer,
    load_query,
    make_rows,
    with_labelled_slices,
)
from fsmis_components.evaluation.records import (
    ORACLE,
    SCORED,
    WHOLE_VOLUME,
    CaseRecord,
    Row,
    case_hash,
    code_hash,
    file_name,
    note_once,
    read_record,
    surroundings,
)
from fsmis_components.evaluation.subjects.base import Group, Subject, group_suffix, merged_masks
from fsmis_components.support.support_set import LabelledSlices, Wanted, support_set_of_cases


@dataclass(frozen=True)
class Plan:
    """What a run of the benchmark computes."""

    cases: Sequence[Case]  # all that are labelled, in the finder's order
    rule: Ep1Rule  # it also says which scan supports which queries
    folds: Sequence[int]  # some of the `num_folds` into which the cases are split
    num_folds: int = 5
    shots: Sequence[int] = (1,)  # numbers K of support scans
    choices: Sequence[int] | None = None  # of support; None: that of the papers' code
    labelled: Sequence[LabelledSlices] = ("sections", "all")
    structures: Wanted = None  # as in `load_support_set`
    names: Mapping[int, str] = field(default_factory=dict)  # by label value
    # `spatial_size`, `slice_axis` and `ignore_spacing` of `choose_slice_grid`
    geometry: Mapping[str, Any] = field(default_factory=dict)


def run_benchmark(
    subjects: Sequence[Subject], plan: Plan, output_dir: str | Path, *, progress: bool = True
) -> tuple[list[CaseRecord], list[str]]:
    """Compute what is not there yet.

    A case or fold that cannot be used is told in the second value, and the others go on. What is
    finished is kept after each case; the same call later computes only what is missing.

    Args:
        subjects: the methods under test.
        plan: what to compute.
        output_dir: the results folder.
        progress: show a bar with the time that is left.

    Returns:
        Records of all finished cases, and one sentence per failure.

    Raises:
        DataError: the rule has no such fold, choice or number of shots, two subjects share a name,
            or the folder holds the results of other weights, settings or code.
    """
    names = [subject.name for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"subjects: two are called {twice[0]}; leave one out.")
    choices = [plan.rule.default_choice] if plan.choices is None else plan.choices
    tasks = [
        plan.rule.task(plan.cases, fold, num_folds=plan.num_folds, shots=shots, choice=choice)
        for fold, shots, choice in product(plan.folds, plan.shots, choices)
    ]
    units = [
        _Unit(subject, task, group, plan, Path(output_dir))
        for subject in subjects
        for task in tasks
        for group in subject.groups()
    ]
    records: list[CaseRecord] = []
    failures: list[str] = []
    hashes = functools.cache(case_hash)
    here = {"code": code_hash(), "surroundings": surroundings()}
    total = sum(len(unit.task.queries) for unit in units)
    with tqdm(total=total, desc="benchmark", unit="case", disable=not progress) as bar:
        for unit in units:
            bar.set_postfix_str(unit.title)
            try:
                identity = unit.prepare(hashes)
            except DataError as error:
                failures.append(f"{unit.title}: {error}")
                bar.update(len(unit.task.queries))
                continue
            note = unit.folder / "unit.json"
            note_once(note, {**identity, **here}, results=unit.folder.glob("*.json"))
            for case in unit.task.queries:
                try:
                    records.append(unit.record(case, hashes(case)))
                except Exception as error:  # whatever it is, it ends one case, not the whole run
                    what = failure_sentence(error, case.image, unit.output)
                    failures.append(f"{unit.title}, case {case.name}: {what}")
                bar.update()
    return records, failures + _empty_folds(records)


@dataclass(eq=False)
class _Unit:
    """One subject with one support of one fold, and the folder of its finished cases."""

    subject: Subject
    task: Task
    group: Group
    plan: Plan
    output: Path

    def __post_init__(self) -> None:
        subject, task, group = self.subject, self.task, self.group
        unit = f"fold{task.fold}_shots{len(task.support)}_choice{task.choice}{group_suffix(group)}"
        self.title = f"{subject.name}, {unit}"
        self.name = f"{file_name(subject.name)}/{unit}"
        self.folder = self.output / "cases" / self.name

    def prepare(self, hashes: Callable[[Case], str]) -> dict[str, Any]:
        """Load the subject and the support; return what decides the figures."""
        subject, task, plan = self.subject, self.task, self.plan
        subject.load(task.fold, self.group)
        others = [case.image for case in plan.cases if case not in (*task.queries, *task.support)]
        tested = [case.image for case in task.queries]
        subject.see(others, tested, self.output / "kept" / self.name)
        support = support_set_of_cases(
            task.support,
            structures=plan.structures if self.group is None else list(self.group),
            names=plan.names,
            source=f"fold {task.fold}, support {'+'.join(case.name for case in task.support)}",
        )
        self.grid = choose_slice_grid(support.scans[0].image, **plan.geometry)
        kinds = [kind for kind in plan.labelled if kind in subject.labelled]
        if not kinds:
            raise DataError(
                f"needs other labelled slices; add {subject.labelled[0]} to --labelled."
            )
        self.supports = [with_labelled_slices(support, self.grid, kind) for kind in kinds]
        return {
            "subject": {**subject.identity(task.fold, self.group), **subject.origin},
            "support": {case.name: hashes(case) for case in task.support},
            "structures": [[entry.name, entry.value] for entry in support.structures],
            "grid": self.grid.to_dict(),
            "rule": plan.rule.name,
            "labelled": kinds,
        }

    def record(self, case: Case, fingerprint: str) -> CaseRecord:
        """The record of a case, computed unless it was finished with the same files."""
        path = self.folder / f"{file_name(case.name)}.json"
        if path.is_file():
            there = read_record(path)
            kept = all((self.output / mask).is_file() for mask in there.masks.values())
            if kept and there.fingerprint == fingerprint:
                return there
        start = time.perf_counter()
        rows: list[Row] = []
        masks: dict[str, str] = {}
        values = [structure.value for structure in self.supports[0].structures]
        query = load_query(case, values, self.grid)
        view = SliceView(query.image, self.grid)
        for support in self.supports:
            # papers define EP1 by three sections, so it has no figure with all slices
            rules = [self.plan.rule.name] if support.slices == "sections" else []
            for protocol in [*rules, ORACLE, WHOLE_VOLUME]:
                found = answer(self.subject, protocol, support, query, self.plan.rule)
                rows += make_rows(found, query, support, protocol, self.subject, self.task)
            kind = f"{file_name(case.name)}_{WHOLE_VOLUME}_{support.slices}.nii.gz"
            mask = Path("masks", self.name, kind)
            label = merged_masks(view, values, found.predicted)
            save_mask(self.output / mask, label, like=query.image)
            masks[f"{WHOLE_VOLUME}/{support.slices}"] = mask.as_posix()
        # absolute: a report may be made from another folder
        paths = os.path.abspath(case.image), os.path.abspath(str(case.label))
        seconds = time.perf_counter() - start
        record = CaseRecord(rows, *paths, masks, seconds, fingerprint, view.slice_axis)
        atomic_write_text(path, json.dumps(asdict(record), indent=1) + "\n")
        return record


def _empty_folds(records: Sequence[CaseRecord]) -> list[str]:
    """A sentence for each fold in which no query holds a structure."""
    rows = [row for record in records for row in record.rows]
    held = {(row.fold, row.structure) for row in rows if row.status == SCORED}
    return [
        f"fold {fold}: no query holds {structure}, so its figures are those of an absent "
        "structure; leave it out with --structures or label it."
        for fold, structure in dict.fromkeys((row.fold, row.structure) for row in rows)
        if (fold, structure) not in held
    ]
