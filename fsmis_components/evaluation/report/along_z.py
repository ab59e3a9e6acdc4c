"""Dice and predicted area along the slices, relative to where the structure begins and ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fsmis_components.evaluation.records import Row, SliceCounts

STEP = 0.1
FIRST = -0.3
INNER_BINS = 16  # from -0.3 to 1.3
NUM_BINS = INNER_BINS + 2  # one more at each end for everything farther away
CENTRES = FIRST + STEP * (np.arange(NUM_BINS) - 0.5)


@dataclass(frozen=True)
class Profile:
    """Means per bin of relative position: 0 is where the label begins, 1 where it ends.

    Attributes:
        dice: percent (NUM_BINS,), per slice; NaN outside 0..1 and in bins without a slice.
        predicted: predicted area (NUM_BINS,) per slice in units of the structure's mean area.
        labelled: area of the label alike.
    """

    dice: np.ndarray
    predicted: np.ndarray
    labelled: np.ndarray


def profile(counts: SliceCounts) -> Profile | None:
    """The profile of one structure of one case; None without a labelled slice.

    A slice within the extent that neither holds the structure nor a prediction has no Dice.
    """
    overlap, predicted, labelled = (
        np.asarray(values, float) for values in (counts.overlap, counts.predicted, counts.labelled)
    )
    own = np.flatnonzero(labelled)
    if not len(own):
        return None
    length = own[-1] - own[0] + 1
    position = (np.arange(len(labelled)) - own[0] + 0.5) / length
    # a small part of a bin keeps positions on a border in the bin above it
    bins = np.floor((position - FIRST) / STEP + 1e-6).astype(int).clip(-1, INNER_BINS) + 1
    area = labelled.sum() / length
    total = predicted + labelled
    inside = (position > 0) & (position < 1) & (total > 0)
    dice = np.full(len(labelled), np.nan)
    dice[inside] = 200 * overlap[inside] / total[inside]
    return Profile(*(_binned(values, bins) for values in (dice, predicted / area, labelled / area)))


def mean_profile(rows: Iterable[tuple[Row, SliceCounts]]) -> Profile | None:
    """Mean over units and structures, each the mean over its choices of support first."""
    gathered: dict[tuple[int, str, str], list[Profile]] = defaultdict(list)
    for row, counts in rows:
        own = profile(counts)
        if own is not None:
            gathered[row.fold, row.case, row.structure].append(own)
    if not gathered:
        return None
    return _mean([_mean(profiles) for profiles in gathered.values()])


def _mean(profiles: Sequence[Profile]) -> Profile:
    return Profile(
        *(
            nan_mean(np.array([getattr(entry, name) for entry in profiles]))
            for name in ("dice", "predicted", "labelled")
        )
    )


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    number = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _binned(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
    return np.array([nan_mean(values[bins == index, None])[0] for index in range(NUM_BINS)])
