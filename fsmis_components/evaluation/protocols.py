"""The protocols: which scan supports which queries, what a method is told, what is scored.

EP1, the field's, tells a method where each structure begins and ends in the query, from the query's
own label; it serves to compare with papers. Its two rules differ in support, scored slices and
thirds, so their figures never share a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.training_cases import fold_split
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.evaluation.metrics import mask_figures
from fsmis_components.evaluation.records import (
    ABSENT,
    FIGURES,
    ORACLE,
    SCORED,
    UNDEFINED,
    WHOLE_VOLUME,
    Row,
)
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.support.sections import NUM_SECTIONS, section_of_slice, section_slices
from fsmis_components.support.support_set import LabelledSlices, SupportSet


@dataclass(frozen=True)
class Task:
    """The queries of a fold with one choice of support."""

    fold: int
    choice: int
    support: tuple[Case, ...]
    queries: tuple[Case, ...]


@dataclass(frozen=True)
class Ep1Rule:
    """A named rule of EP1."""

    name: str  # what tables call it
    default_choice: int  # of support, in the papers' code
    # gives a `Task` for all labelled cases in the finder's order, a fold, and by keyword
    # `num_folds`, the number of support scans `shots` and the `choice` of them, from 0; a DataError
    # where the rule has no such fold, number of shots or choice
    task: Callable[..., Task]
    # gives the scored slices, each with its third, for those that hold a structure
    thirds: Callable[[list[int]], Iterable[tuple[int, int]]]

    def sections(self, present: np.ndarray) -> torch.Tensor:
        """Third of the true extent in which each query slice lies.

        Args:
            present: bool (D, N), does slice d hold structure n.

        Returns:
            (D, N), 0, 1 or 2; -1 where the slice is not scored.
        """
        found = torch.full(present.shape, -1, dtype=torch.long)
        for structure, column in enumerate(present.T):
            held = np.flatnonzero(column).tolist()
            for index, third in self.thirds(held) if held else ():
                found[index, structure] = third
        return found


def _alp_task(cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int) -> Task:
    """Disjoint folds; the support is the next case (choice c: c further), K shots the K from it."""
    test = fold_split(cases, fold, num_folds).test
    if shots < 1 or choice < 0 or choice + shots > len(cases) - len(test):
        raise DataError(
            f"ep1-alp: {shots} support scans at choice {choice} are not to be had beside the "
            f"{len(test)} queries of fold {fold} among {len(cases)} cases; lower --shots or "
            "--choices."
        )
    start = cases.index(test[-1]) + 1 + choice
    support = tuple(cases[(start + shot) % len(cases)] for shot in range(shots))
    return Task(fold, choice, support, test)


def _alp_thirds(held: list[int]) -> Iterable[tuple[int, int]]:
    """Every slice from the first to the last that holds the structure, by thirds of that range."""
    for index in range(held[0], held[-1] + 1):
        yield index, section_of_slice(index, held[0], held[-1])


def _qnet_task(
    cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
) -> Task:
    """One of a fold's cases and the first of the next fold, by number, supports the others."""
    split = fold_split(cases, fold, num_folds)
    # by number, also in the last fold, whose extra case is the first of all
    listed = sorted(split.test + split.support, key=cases.index)
    if shots != 1 or not 0 <= choice < len(listed):
        raise DataError(
            f"ep1-qnet: fold {fold} has one support scan, choice 0 to {len(listed) - 1}, got "
            f"{shots} at choice {choice}; change --shots or --choices, or use ep1-alp."
        )
    return Task(fold, choice, (listed.pop(choice),), tuple(listed))


def _qnet_thirds(held: list[int]) -> Iterable[tuple[int, int]]:
    """Only slices that hold the structure, in three equal parts."""
    borders = [len(held) * part // NUM_SECTIONS for part in range(NUM_SECTIONS + 1)]
    for third in range(NUM_SECTIONS):
        for index in held[borders[third] : borders[third + 1]]:
            yield index, third


# SSL-ALPNet's released code, and Q-Net's with those that descend from it, whose lists of cases
# overlap, so that some are tested twice and some never
RULES = {
    rule.name: rule
    for rule in (
        Ep1Rule("ep1-alp", 0, _alp_task, _alp_thirds),
        Ep1Rule("ep1-qnet", 2, _qnet_task, _qnet_thirds),
    )
}


class Query(NamedTuple):
    """A query with its label cut into slices."""

    case: Case
    image: Volume  # all that a subject gets to see
    grid: SliceGrid  # says along which axis slices are cut
    truth: np.ndarray  # masks (D, N, h, w) of bool, native voxels
    spacing: tuple[float, float, float]  # millimetres between slices, rows and columns


class Answer(NamedTuple):
    """Masks (D, N, h, w) of bool of a subject and of the label, cut to the slices that count."""

    predicted: np.ndarray
    truth: np.ndarray


def load_query(case: Case, values: Sequence[int], grid: SliceGrid) -> Query:
    """Read a query and its label; one that is missing or cannot be used is a `DataError`."""
    if case.label is None:
        raise DataError(
            f"{case.image}: the benchmark needs a label, none was found beside it; add it or "
            "leave the case out."
        )
    image = load_image(case.image)
    view = SliceView(load_label(case.label, image), grid)
    slices = view.native_labels()
    truth = np.stack([slices == value for value in values], axis=1)
    return Query(case, image, grid, truth, view.native_spacing)


def answer(
    subject: Subject, protocol: str, support: SupportSet, query: Query, rule: Ep1Rule
) -> Answer:
    """Ask a subject, loaded for the fold, under a protocol: the rule's name, "oracle" or "wv".

    Only the query's image goes to the subject and, except under "wv", the slices of its label.
    """
    truth = query.truth
    if protocol == WHOLE_VOLUME:
        return Answer(subject.predict_masks(support, query.image, query.grid), truth)
    oracle = protocol == ORACLE
    present = np.asarray(truth.any((2, 3)))  # (D, N)
    sections = (RULES["ep1-alp"] if oracle else rule).sections(present)
    predicted = subject.predict_told(support, query.image, query.grid, sections, overlap=not oracle)
    if oracle:
        return Answer(predicted, truth)
    scored = (sections >= 0).numpy()[..., None, None]
    return Answer(predicted & scored, truth & scored)


def make_rows(
    found: Answer, query: Query, support: SupportSet, protocol: str, subject: Subject, task: Task
) -> list[Row]:
    """Figures of an answer, one row per structure."""
    rows = []
    for index, structure in enumerate(support.structures):
        status = SCORED if query.truth[:, index].any() else ABSENT
        if status == ABSENT and protocol in RULES:
            status, figures = UNDEFINED, dict.fromkeys(FIGURES, float("nan"))
        else:
            masks = found.predicted[:, index], found.truth[:, index]
            figures = mask_figures(*masks, query.spacing)
        rows.append(
            Row(
                method=subject.name,
                setting=subject.setting,
                fold=task.fold,
                choice=task.choice,
                shots=len(support.scans),
                support="+".join(scan.name for scan in support.scans),
                labelled=support.slices,
                protocol=protocol,
                case=query.case.name,
                structure=structure.name,
                value=structure.value,
                status=status,
                **figures,
            )
        )
    return rows


def with_labelled_slices(
    support: SupportSet, grid: SliceGrid, slices: LabelledSlices
) -> SupportSet:
    """A support set whose labels hold only the slices that count as labelled.

    Args:
        support: completely labelled scans.
        grid: says along which axis slices are cut.
        slices: "all": nothing is hidden. "sections": each structure keeps its three slices at 1/6,
            1/2 and 5/6 of the slices that hold it, in each scan.
    """
    if slices == "all":
        return replace(support, slices=slices)
    scans = []
    for scan in support.scans:
        view = SliceView(scan.label, grid)
        stack = view.native_labels()
        kept = np.zeros_like(stack)
        for structure in support.structures:
            held = np.flatnonzero((stack == structure.value).any((1, 2))).tolist()
            for index in set(section_slices(held)) if held else ():
                kept[index][stack[index] == structure.value] = structure.value
        label = Volume(view.restack(kept), scan.label.affine, scan.label.source)
        scans.append(replace(scan, label=label))
    return replace(support, scans=tuple(scans), slices=slices)
