"""The slices of a picture: a query slice and the support slice that answers for it under EP1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.intensity import Normalisation, fit_normaliser
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.evaluation.metrics import slice_counts
from fsmis_components.evaluation.rules import RULES
from fsmis_components.support.encode import structure_slices
from fsmis_components.support.sections import section_slices
from fsmis_components.support.support_set import Structure, SupportSet

RULE = RULES["ep1-alp"]
_MIDDLE = 1  # of the sections 0, 1 and 2


@dataclass(frozen=True)
class LabelledSlice:
    """One slice as the network sees it, with the label of one structure.

    Attributes:
        case: name of its scan.
        number: of the slice, from 0.
        image: normalised, (1, 1, H, W).
        mask: 0 and 1, (1, 1, H, W).
    """

    case: str
    number: int
    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class SlicePair:
    """A support slice and a query slice of one structure.

    Attributes:
        structure: the structure.
        section: third of the extent in which both lie, 0, 1 or 2.
        support: labelled.
        query: its label is for the eye of the reader, not for the network.
        view: the query's scan.
        truth: the query's label at the scan's own resolution, bool (h, w).
    """

    structure: Structure
    section: int
    support: LabelledSlice
    query: LabelledSlice
    view: SliceView
    truth: np.ndarray

    def dice(self, margin: Tensor) -> float:
        """Dice of the query slice at the scan's own resolution, percent.

        Args:
            margin: of the structure, which is where it is positive, (1, 1, H, W).
        """
        native = self.view.to_native_logits(margin)[0, 0]
        return dice((native > 0).cpu().numpy(), self.truth)


@dataclass(frozen=True)
class _Scan:
    name: str
    view: SliceView
    label: SliceView
    image: Volume


def choose_pairs(
    support_set: SupportSet,
    case: Case,
    grid: SliceGrid,
    normalisation: Normalisation,
    number: int | None = None,
) -> list[SlicePair]:
    """Choose a pair for each structure that the query holds.

    The query slice is the middle one of those that hold the structure in the middle third of its
    extent, or of all where that third is empty; the support slice is the one that answers for this
    third by the rule `ep1-alp`. The query's label serves for this choice and to be drawn.

    Args:
        support_set: its first scan is the support.
        case: the query.
        grid: how scans are cut.
        normalisation: intensity rule.
        number: the query slice, from 0, in place of the middle one.

    Raises:
        DataError: the query has no label, holds none of the structures, or not within the slice.
    """
    first = support_set.scans[0]
    support = _Scan(
        first.name, SliceView(first.image, grid), SliceView(first.label, grid), first.image
    )
    query = _load(case, grid)
    if number is not None and not 0 <= number < query.view.depth:
        raise DataError(
            f"{case.image}: the scan has the slices 1 to {query.view.depth}, not {number + 1}; "
            "change --slice."
        )
    pairs = [
        pair
        for structure in support_set.structures
        if (pair := _pair(structure, support, query, normalisation, number)) is not None
    ]
    if not pairs:
        names = ", ".join(f"{entry.name} ({entry.value})" for entry in support_set.structures)
        place = "" if number is None else f" at slice {number + 1}"
        raise DataError(f"{case.label}: nothing of {names} there{place}; choose another case.")
    return pairs


def dice(predicted: np.ndarray, labelled: np.ndarray) -> float:
    """Dice of two masks (h, w) of bool in percent; 100 where both are empty."""
    counts = slice_counts(predicted[None], labelled[None])
    total = counts.predicted[0] + counts.labelled[0]
    return 200.0 * counts.overlap[0] / total if total else 100.0


def _pair(
    structure: Structure,
    support: _Scan,
    query: _Scan,
    normalisation: Normalisation,
    number: int | None,
) -> SlicePair | None:
    """The pair of one structure; None where the query, or its given slice, lacks it."""
    truth = query.label.native_labels() == structure.value
    present = truth.any((1, 2))
    if not present.any():
        return None
    sections = RULE.sections(present[:, None])[:, 0].numpy()
    if number is None:
        own = np.flatnonzero(present & (sections == _MIDDLE))
        own = own if len(own) else np.flatnonzero(present)
        number = int(own[len(own) // 2])
    elif not present[number]:
        return None
    section = int(sections[number])
    found, _ = structure_slices(support.label, [structure.value])
    if not found[0]:
        raise DataError(
            f"{support.name}: structure {structure.name} is smaller than one pixel there; choose "
            "another support."
        )
    answering = section_slices(found[0])[section]
    return SlicePair(
        structure,
        section,
        _labelled_slice(support, answering, structure, normalisation),
        _labelled_slice(query, number, structure, normalisation),
        query.view,
        truth[number],
    )


def _labelled_slice(
    scan: _Scan, number: int, structure: Structure, normalisation: Normalisation
) -> LabelledSlice:
    image = fit_normaliser(scan.image, normalisation)(scan.view.slices(number, number + 1))
    mask = scan.label.labels(number, number + 1, [structure.value])
    return LabelledSlice(scan.name, number, image, mask)


def _load(case: Case, grid: SliceGrid) -> _Scan:
    if case.label is None:
        raise DataError(
            f"{case.image}: the picture needs a label, none was found beside it; add it or choose "
            "another case."
        )
    image = load_image(case.image)
    label = load_label(case.label, image)
    return _Scan(case.name, SliceView(image, grid), SliceView(label, grid), image)
