"""How similar scans are, and which of them stand for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fsmis_components.inferers.z_alignment import Alignment, align
from fsmis_components.selection.descriptors import ScanDescriptors

# of the similarities to the scans that a support is to serve; chosen on ACDC and a fold of CHAOS
_QUANTILE = 0.25

# similarity, and where the slices of each scan lie in the other, by the keys of both scans
Compared = dict[tuple[str, str], tuple[float, list[float], list[float]]]


@dataclass(frozen=True)
class ScanSimilarity:
    """All pairs of scans, compared as inference compares a query with its support."""

    # (K, K) mean similarity of slices along the best line, symmetric; 1 on the diagonal
    values: np.ndarray
    # (K, K) where scan j lies in scan i: first and last slice of j as places in i, float (K, K, 2),
    # the smaller one first
    shown: np.ndarray

    def to_others(self, place: int) -> float:
        """Mean similarity of a scan to the others; 1 where there are none."""
        others = np.delete(self.values[place], place)
        return float(others.mean()) if len(others) else 1.0


def compare_scans(
    scans: Sequence[ScanDescriptors],
    known: Compared | None = None,
    progress: Iterable[int] | None = None,
) -> ScanSimilarity:
    """Compare every scan with every other; `progress` yields their numbers, for a bar.

    Costs one alignment per pair, about a hundredth of a second for 40 slices each. Pairs that are
    `known` are not compared again; those of scans with a key are added.
    """
    count = len(scans)
    values = np.eye(count)
    shown = np.empty((count, count, 2))
    for i in progress if progress is not None else range(count):
        shown[i, i] = 0, scans[i].depth - 1
        for j in range(i):
            pair = scans[j].key, scans[i].key
            found = known.get(pair) if known is not None else None
            if found is None:
                found = _compare(scans[j], scans[i])
                if known is not None and all(pair):
                    known[pair] = found
            values[i, j] = values[j, i] = found[0]
            shown[i, j], shown[j, i] = found[1:]
    return ScanSimilarity(values, shown)


def _compare(
    query: ScanDescriptors, support: ScanDescriptors
) -> tuple[float, list[float], list[float]]:
    line = align_scans(query, support)
    # the same line seen from the other scan
    ends = (np.array([0, support.depth - 1]) - line.positions[0]) / line.slope
    return line.similarity, sorted(line.positions[[0, -1]]), sorted(ends)


def align_scans(query: ScanDescriptors, support: ScanDescriptors) -> Alignment:
    """Where the slices of one scan lie in another."""
    spacings = query.slice_spacing, support.slice_spacing
    trusted = query.grid.spacing is not None and support.grid.spacing is not None
    return align(
        query.descriptors, support.descriptors, spacings[0] / spacings[1] if trusted else 1.0
    )


def choose_scans(
    similarity: np.ndarray, candidates: Sequence[int], labelled: Sequence[int], num: int
) -> list[int]:
    """At most `num` candidates that, with the labelled ones, stand for the others best."""
    chosen: list[int] = []
    left = list(candidates)
    while left and len(chosen) < num:
        best = by_gain(left, gains_of(similarity, left, [*labelled, *chosen]))[0]
        chosen.append(best)
        left.remove(best)
    return chosen


def by_gain(candidates: Sequence[int], gains: np.ndarray) -> list[int]:
    """Candidates by falling gain (len(candidates), 2); the second column counts in a tie."""
    order = sorted(range(len(candidates)), key=lambda index: tuple(-gains[index].round(9)))
    return [candidates[index] for index in order]


def gains_of(
    similarity: np.ndarray, candidates: Sequence[int], labelled: Sequence[int]
) -> np.ndarray:
    """What each candidate, if labelled, brings to the other scans that are not, (candidates, 2).

    A scan is stood for by the labelled scan most like it, by `similarity` (K, K). The lower
    quartile of that similarity counts, and in the second column its mean: that is high too for a
    scan that closely resembles some and is useless to others. With nothing labelled the gain is
    that of a candidate's similarity to all others.
    """
    gains = np.zeros((len(candidates), 2))
    for index, candidate in enumerate(candidates):
        others = np.setdiff1d(np.arange(len(similarity)), [candidate, *labelled])
        if not len(others):
            continue
        offered = similarity[others, candidate]
        if len(labelled):
            before = similarity[others][:, labelled].max(1)
            gains[index] = _summary(np.maximum(before, offered)) - _summary(before)
        else:
            gains[index] = _summary(offered)
    return gains


def _summary(values: np.ndarray) -> np.ndarray:
    return np.array([np.quantile(values, _QUANTILE), values.mean()])
