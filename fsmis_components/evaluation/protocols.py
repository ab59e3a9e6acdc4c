"""The protocols: which scan supports which queries, what a method is told, what is scored.

EP1, the field's, tells a method where each structure begins and ends in the query, from the query's
own label; it serves to compare with papers. Its two rules differ in support, scored slices and
thirds, so their figures never share a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

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
from fsmis_components.support.support_set import LabelledSlices, SupportScan, SupportSet


@dataclass(frozen=True)
class Task:
    """The queries of a fold with one choice of support."""

    fold: int
    choice: int
    support: tuple[Case, ...]
    queries: tuple[Case, ...]


class Ep1Rule(ABC):
    """A named rule of EP1; `default_choice` of the support is that of the papers' code."""

    name: str
    default_choice: int

    @abstractmethod
    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """The support and the queries of a fold.

        Args:
            cases: all labelled cases in the finder's order, by number.
            fold: number of the fold.
            num_folds: number of folds.
            shots: number K of support scans.
            choice: which choice of support, from 0.

        Raises:
            DataError: the rule has no such fold, number of shots or choice.
        """

    @abstractmethod
    def sections(self, present: np.ndarray) -> torch.Tensor:
        """Third of the true extent in which each query slice lies.

        Args:
            present: bool (D, N), does slice d hold structure n.

        Returns:
            (D, N), 0, 1 or 2; -1 where the slice is not scored.
        """


class AlpRule(Ep1Rule):
    """SSL-ALPNet's rule (released code, `methods` in its paper's section on evaluation).

    Folds are disjoint; the support of a fold is the next case (choice c: c cases further), K shots
    are K consecutive cases. Every slice from the first to the last that holds a structure is
    scored, in thirds of that range.
    """

    name = "ep1-alp"
    default_choice = 0

    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """See `Ep1Rule.task`."""
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

    def sections(self, present: np.ndarray) -> torch.Tensor:
        """See `Ep1Rule.sections`."""
        found = torch.full(present.shape, -1, dtype=torch.long)
        for structure, column in enumerate(present.T):
            held = np.flatnonzero(column).tolist()
            for index in range(held[0], held[-1] + 1) if held else ():
                found[index, structure] = section_of_slice(index, held[0], held[-1])
        return found


class QnetRule(Ep1Rule):
    """The rule of Q-Net's released code and of those that descend from it.

    The list of a fold is its cases and the first of the next fold, by number; one case of the list
    (choice 2 in the released scripts) supports the others. Only slices that hold a structure are
    scored, in three equal parts. Lists overlap, so some cases are tested twice and some never.
    """

    name = "ep1-qnet"
    default_choice = 2

    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """See `Ep1Rule.task`."""
        split = fold_split(cases, fold, num_folds)
        # by number, also in the last fold, whose extra case is the first of all
        listed = sorted(split.test + split.support, key=cases.index)
        if shots != 1:
            raise DataError(f"ep1-qnet: the rule has one support scan, got {shots}; use ep1-alp.")
        if not 0 <= choice < len(listed):
            raise DataError(
                f"ep1-qnet: fold {fold} has the choices of support 0 to {len(listed) - 1}, got "
                f"{choice}; change --choices."
            )
        return Task(fold, choice, (listed.pop(choice),), tuple(listed))

    def sections(self, present: np.ndarray) -> torch.Tensor:
        """See `Ep1Rule.sections`."""
        found = torch.full(present.shape, -1, dtype=torch.long)
        for structure, column in enumerate(present.T):
            held = torch.from_numpy(np.flatnonzero(column))
            borders = [len(held) * part // NUM_SECTIONS for part in range(NUM_SECTIONS + 1)]
            for section in range(NUM_SECTIONS):
                found[held[borders[section] : borders[section + 1]], structure] = section
        return found


RULES: dict[str, Ep1Rule] = {rule.name: rule for rule in (AlpRule(), QnetRule())}


@dataclass(frozen=True)
class Query:
    """A query with its label cut into slices."""

    case: Case
    image: Volume  # all that a subject gets to see
    grid: SliceGrid  # says along which axis slices are cut
    truth: np.ndarray  # masks (D, N, h, w) of bool, native voxels
    spacing: tuple[float, float, float]  # millimetres between slices, rows and columns


@dataclass(frozen=True)
class Answer:
    """What a subject answered under a protocol, cut to the slices that are scored."""

    predicted: np.ndarray  # masks (D, N, h, w) of bool
    truth: np.ndarray  # the label alike
    defined: list[bool]  # per structure, whether the protocol scores anything


def load_query(case: Case, values: Sequence[int], grid: SliceGrid) -> Query:
    """Read a query and its label.

    Raises:
        DataError: the case has no label, or one of its files cannot be used.
    """
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
    everything = [True] * truth.shape[1]
    if protocol == WHOLE_VOLUME:
        predicted = subject.predict_masks(support, query.image, query.grid)
        return Answer(predicted, truth, everything)
    oracle = protocol == ORACLE
    present = np.asarray(truth.any((2, 3)))  # (D, N)
    sections = (RULES["ep1-alp"] if oracle else rule).sections(present)
    predicted = subject.predict_told(support, query.image, query.grid, sections, overlap=not oracle)
    if oracle:
        return Answer(predicted, truth, everything)
    scored = (sections >= 0).numpy()[..., None, None]
    return Answer(predicted & scored, truth & scored, [bool(column.any()) for column in present.T])


def make_rows(
    found: Answer, query: Query, support: SupportSet, protocol: str, subject: Subject, task: Task
) -> list[Row]:
    """Figures of an answer, one row per structure."""
    rows = []
    for index, structure in enumerate(support.structures):
        status, figures = UNDEFINED, dict.fromkeys(FIGURES, float("nan"))
        if found.defined[index]:
            status = SCORED if query.truth[:, index].any() else ABSENT
            masks = found.predicted[:, index], found.truth[:, index]
            figures = asdict(mask_figures(*masks, query.spacing))
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

    Returns:
        The support set; images are shared, not copied.
    """
    if slices == "all":
        return replace(support, slices=slices)
    values = [structure.value for structure in support.structures]
    scans = tuple(_with_sections(scan, grid, values) for scan in support.scans)
    return replace(support, scans=scans, slices=slices)


def _with_sections(scan: SupportScan, grid: SliceGrid, values: Sequence[int]) -> SupportScan:
    view = SliceView(scan.label, grid)
    stack = view.native_labels()
    kept = np.zeros_like(stack)
    for value in values:
        held = np.flatnonzero((stack == value).any((1, 2))).tolist()
        for index in set(section_slices(held)) if held else ():
            kept[index][stack[index] == value] = value
    label = Volume(view.restack(kept), scan.label.affine, scan.label.source)
    return replace(scan, label=label)
