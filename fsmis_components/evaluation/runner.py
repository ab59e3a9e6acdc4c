"""The benchmark: every subject, fold, choice of support and case, kept as soon as it is done."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, failure_sentence
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid
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
    UnitFolder,
    case_hash,
    code_hash,
    file_name,
    surroundings,
)
from fsmis_components.evaluation.subjects.base import Group, Subject, group_suffix
from fsmis_components.evaluation.subjects.slicewise import merged_masks
from fsmis_components.support.support_set import (
    LabelledSlices,
    SupportSet,
    Wanted,
    support_set_of_cases,
)


@dataclass(frozen=True)
class Plan:
    """What a run of the benchmark computes.

    Attributes:
        cases: all labelled cases, in the finder's order.
        rule: the rule of EP1; it also says which scan supports which queries.
        folds: some of the `num_folds` into which the cases are split.
        shots: numbers K of support scans.
        choices: choices of support; None: that of the papers' code.
        labelled: kinds of labelled slices.
        structures: as in `load_support_set`; `names` gives a name per label value.
        geometry: `spatial_size`, `slice_axis` and `ignore_spacing` of `choose_slice_grid`.
    """

    cases: Sequence[Case]
    rule: Ep1Rule
    folds: Sequence[int]
    num_folds: int = 5
    shots: Sequence[int] = (1,)
    choices: Sequence[int] | None = None
    labelled: Sequence[LabelledSlices] = ("sections", "all")
    structures: Wanted = None
    names: Mapping[int, str] = field(default_factory=dict)
    geometry: Mapping[str, Any] = field(default_factory=dict)

    def tasks(self) -> list[Task]:
        """What is to be segmented with which support, fold by fold.

        Raises:
            DataError: the rule has no such fold, choice or number of shots.
        """
        choices = [self.rule.default_choice] if self.choices is None else self.choices
        return [
            self.rule.task(self.cases, fold, num_folds=self.num_folds, shots=shots, choice=choice)
            for fold in self.folds
            for shots in self.shots
            for choice in choices
        ]


@dataclass(frozen=True)
class _Unit:
    """One subject with one support of one fold."""

    subject: Subject
    task: Task
    group: Group

    @property
    def name(self) -> str:
        support = f"shots{len(self.task.support)}_choice{self.task.choice}"
        return f"fold{self.task.fold}_{support}{group_suffix(self.group)}"


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
        DataError: the plan has no task, two subjects share a name, or the folder holds the
            results of other weights, settings or code.
    """
    names = [subject.name for subject in subjects]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"subjects: two are called {twice}; leave one out.")
    tasks = plan.tasks()
    units = [
        _Unit(subject, task, group)
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
            title = f"{unit.subject.name}, {unit.name}"
            bar.set_postfix_str(title)
            try:
                supports, grid, identity = _support(unit, plan, hashes, Path(output_dir))
            except DataError as error:
                failures.append(f"{title}: {error}")
                bar.update(len(unit.task.queries))
                continue
            folder = UnitFolder(
                Path(output_dir), unit.subject.name, unit.name, {**identity, **here}
            )
            for case in unit.task.queries:
                try:
                    fingerprint = hashes(case)
                    record = folder.finished(case.name, fingerprint)
                    if record is None:
                        found = _score_case(unit, plan.rule, supports, grid, case, folder)
                        record = replace(found, fingerprint=fingerprint)
                        folder.add(case.name, record)
                    records.append(record)
                except Exception as error:  # whatever it is, it ends one case, not the whole run
                    what = failure_sentence(error, case.image, Path(output_dir))
                    failures.append(f"{title}, case {case.name}: {what}")
                bar.update()
    return records, failures + _empty_folds(records)


def _empty_folds(records: Sequence[CaseRecord]) -> list[str]:
    """A sentence for each fold in which no query holds a structure."""
    held: dict[tuple[int, str], bool] = {}
    for row in (row for record in records for row in record.rows):
        key = (row.fold, row.structure)
        held[key] = held.get(key, False) or row.status == SCORED
    return [
        f"fold {fold}: no query holds {structure}, so its figures are those of an absent "
        "structure; leave it out with --structures or label it."
        for (fold, structure), there in held.items()
        if not there
    ]


def _support(
    unit: _Unit, plan: Plan, hashes: Callable[[Case], str], output_dir: Path
) -> tuple[list[SupportSet], SliceGrid, dict[str, Any]]:
    """A unit's support per kind of labelled slices, how it is cut, and what decides the figures."""
    subject, task = unit.subject, unit.task
    subject.load(task.fold, unit.group)
    others = [case.image for case in plan.cases if case not in (*task.queries, *task.support)]
    kept = output_dir / "kept" / file_name(subject.name) / unit.name
    subject.see(others, [case.image for case in task.queries], kept)
    support = support_set_of_cases(
        task.support,
        structures=plan.structures if unit.group is None else list(unit.group),
        names=plan.names,
        source=f"fold {task.fold}, support {'+'.join(case.name for case in task.support)}",
    )
    grid = choose_slice_grid(support.scans[0].image, **plan.geometry)
    kinds = [kind for kind in plan.labelled if kind in subject.labelled]
    identity = {
        "subject": {**subject.identity(task.fold, unit.group), **subject.origin},
        "support": {case.name: hashes(case) for case in task.support},
        "structures": [[entry.name, entry.value] for entry in support.structures],
        "grid": grid.to_dict(),
        "rule": plan.rule.name,
        "labelled": kinds,
    }
    return [with_labelled_slices(support, grid, kind) for kind in kinds], grid, identity


def _score_case(
    unit: _Unit,
    rule: Ep1Rule,
    supports: Sequence[SupportSet],
    grid: SliceGrid,
    case: Case,
    folder: UnitFolder,
) -> CaseRecord:
    start = time.perf_counter()
    rows: list[Row] = []
    masks: dict[str, str] = {}
    values = [structure.value for structure in supports[0].structures]
    query = load_query(case, values, grid)
    view = SliceView(query.image, grid)
    for support in supports:
        # papers define EP1 by three sections, so it has no figure with all slices
        protocols = [rule.name] if support.slices == "sections" else []
        for protocol in [*protocols, ORACLE, WHOLE_VOLUME]:
            found = answer(unit.subject, protocol, support, query, rule)
            rows += make_rows(found, query, support, protocol, unit.subject, unit.task)
            if protocol == WHOLE_VOLUME:
                path = folder.mask_path(case.name, protocol, support.slices)
                save_mask(path, merged_masks(view, values, found.predicted), like=query.image)
                masks[f"{protocol}/{support.slices}"] = path.relative_to(folder.root).as_posix()
    return CaseRecord(
        rows,
        # absolute: a report may be made from another folder
        os.path.abspath(case.image),
        os.path.abspath(str(case.label)),
        masks,
        seconds=time.perf_counter() - start,
        slice_axis=view.slice_axis,
        mask_hashes={path: file_hash(folder.root / path) for path in masks.values()},
    )
