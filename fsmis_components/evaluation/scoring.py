"""One query under one protocol: what a subject answers, and the figures of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.evaluation.metrics import mask_figures, slice_counts
from fsmis_components.evaluation.records import (
    ABSENT,
    FIGURES,
    ORACLE,
    SCORED,
    UNDEFINED,
    WHOLE_VOLUME,
    Row,
    SliceCounts,
)
from fsmis_components.evaluation.rules import RULES, Ep1Rule, Task
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.slicewise import merged_masks
from fsmis_components.support.sections import section_slices
from fsmis_components.support.support_set import LabelledSlices, SupportScan, SupportSet


@dataclass(frozen=True)
class Query:
    """A query with its label cut into slices.

    Attributes:
        case: where it lies.
        image: the scan; all that a subject gets to see.
        grid: says along which axis slices are cut.
        truth: masks (D, N, h, w) of bool, native voxels.
        spacing: millimetres between slices, rows and columns.
    """

    case: Case
    image: Volume
    grid: SliceGrid
    truth: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Answer:
    """What a subject answered under a protocol, cut to the slices that are scored.

    Attributes:
        predicted: masks (D, N, h, w) of bool.
        truth: the label alike.
        defined: per structure, whether the protocol scores anything.
    """

    predicted: np.ndarray
    truth: np.ndarray
    defined: list[bool]


def load_query(case: Case, values: list[int], grid: SliceGrid) -> Query:
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
    """Ask a subject under a protocol.

    Args:
        subject: loaded for the fold.
        protocol: the rule's name, "oracle" or "wv".
        support: with the slices that count as labelled.
        query: only its image goes to the subject and, except under "wv", the slices of its label.
        rule: the rule of EP1.

    Raises:
        ValueError: the subject's masks have another shape than the scan.
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


def label_map(found: Answer, query: Query, support: SupportSet) -> np.ndarray:
    """An answer as one label map (X, Y, Z) in the scan's storage order; the last structure wins."""
    values = [structure.value for structure in support.structures]
    return merged_masks(SliceView(query.image, query.grid), values, found.predicted)


def make_rows(
    found: Answer, query: Query, support: SupportSet, protocol: str, subject: Subject, task: Task
) -> list[Row]:
    """Figures of an answer, one row per structure.

    Args:
        found: the answer.
        query: the query.
        support: the support that was given.
        protocol: the protocol that was asked.
        subject: the method.
        task: fold and choice of support.
    """
    rows = []
    for index, structure in enumerate(support.structures):
        status, values = _figures(found, query, index)
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
                **values,
            )
        )
    return rows


def counts(found: Answer, structure: int) -> SliceCounts:
    """Voxels per slice of one structure, by its place among the N."""
    return slice_counts(found.predicted[:, structure], found.truth[:, structure])


def _figures(found: Answer, query: Query, structure: int) -> tuple[str, dict[str, float]]:
    if not found.defined[structure]:
        return UNDEFINED, dict.fromkeys(FIGURES, float("nan"))
    result = mask_figures(found.predicted[:, structure], found.truth[:, structure], query.spacing)
    return SCORED if query.truth[:, structure].any() else ABSENT, asdict(result)


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
    scans = tuple(_hidden(scan, grid, values) for scan in support.scans)
    return replace(support, scans=scans, slices=slices)


def _hidden(scan: SupportScan, grid: SliceGrid, values: list[int]) -> SupportScan:
    view = SliceView(scan.label, grid)
    stack = view.native_labels()
    kept = np.zeros_like(stack)
    for value in values:
        own = np.flatnonzero((stack == value).any((1, 2))).tolist()
        for index in sorted(set(section_slices(own))) if own else ():
            kept[index][stack[index] == value] = value
    label = Volume(view.restack(kept), scan.label.affine, scan.label.source)
    return replace(scan, label=label)
