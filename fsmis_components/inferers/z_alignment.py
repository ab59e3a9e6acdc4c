"""Where the slices of a query lie in a support scan: a straight line through their similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# a patient is at most a third shorter or longer than the support's
_STRETCHES = np.geomspace(0.75, 1 / 0.75, 13)
_LEAST_OVERLAP = 0.5  # share of the shorter stack that a line must keep inside both
_STRETCH_COST = 0.1  # off the mean similarity, per unit of |log(slope / ratio)|
_STEP = 0.5  # of the offset, in support slices
_MOST_OFFSETS = 512  # so that stacks of a thousand slices take no longer than they must


@dataclass(frozen=True)
class Alignment:
    """A map from query slices to support slices."""

    # (D,), where each query slice lies in the support scan, in support slices; it may lie outside
    # 0..Z-1, where the query shows more of the body
    positions: np.ndarray
    slope: float  # support slices per query slice; negative where the stacks run against each other
    similarity: float  # mean similarity along the line, what makes two scans comparable


def align(similarity: np.ndarray, ratio: float = 1.0, reversed_cost: float = 0.05) -> Alignment:
    """Find the straight line z -> slope z + offset along which two scans look most alike.

    All lines are tried, so there is no start value to get wrong. A line has two numbers, which many
    slices decide together; a free monotone path follows each slice's error.

    Args:
        similarity: (D, Z) of query and support slices.
        ratio: spacing of the query's slices over that of the support's, the expected slope.
        reversed_cost: taken off where the stacks run against each other, which a right header
            excludes; more where one stack is but a part of the other, which then looks much the
            same from either end.
    """
    depth, support_depth = similarity.shape
    shorter, longer = sorted((depth * ratio, float(support_depth)))
    reversed_cost = reversed_cost * longer / shorter
    slices = np.arange(depth)
    best: tuple[float, float, float] | None = None
    for direction in (1.0, -1.0):
        for stretch in _STRETCHES:
            slope = direction * ratio * stretch
            reach = slope * (depth - 1)
            first, last = -max(reach, 0.0), support_depth - 1 - min(reach, 0.0)
            step = max(_STEP, (last - first) / _MOST_OFFSETS)
            # the middle of both stacks is always tried, however short they are
            centre = (support_depth - 1 - reach) / 2
            offsets = centre + step * np.arange(
                -np.floor((centre - first) / step), np.floor((last - centre) / step) + 1
            )
            positions = slope * slices + offsets[:, None]
            inside = (positions >= 0) & (positions <= support_depth - 1)
            count = inside.sum(1)
            least = max(1.0, _LEAST_OVERLAP * min(depth, (support_depth - 1) / abs(slope) + 1))
            total = (_along(similarity, positions) * inside).sum(1)
            score = total / np.maximum(count, 1) - _STRETCH_COST * abs(np.log(stretch))
            score = score - reversed_cost * (direction < 0)
            score[count < least] = -np.inf
            index = int(score.argmax())
            if best is None or score[index] > best[0]:
                best = (float(score[index]), slope, float(offsets[index]))
    assert best is not None  # noqa: S101 (there is always a direction)
    score, slope, offset = best
    return Alignment(slope * slices + offset, slope, score)


def _along(similarity: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Similarity at positions (K, D) between support slices, linear; ends repeat."""
    last = similarity.shape[1] - 1
    inside = np.clip(positions, 0, last)
    lower = np.floor(inside).astype(np.int64)
    upper = np.minimum(lower + 1, last)
    share = inside - lower
    rows = np.arange(len(similarity))
    return similarity[rows, lower] * (1 - share) + similarity[rows, upper] * share
