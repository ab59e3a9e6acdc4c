"""Where the slices of a query lie in a support scan: a straight line through their similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsmis_components.encoding.slice_descriptors import comparable

# a patient is at most a third shorter or longer than the support's
_STRETCHES = np.geomspace(0.75, 1 / 0.75, 13)
_LEAST_OVERLAP = 0.5  # share of the shorter stack that a line must keep inside both
_OVERLAP_COST = 0.1  # of a line that keeps nothing of the shorter stack inside
_STRETCH_COST = 0.1  # off the mean similarity, per unit of |log(slope / ratio)|
# of the score, by which a line must lead that overrules the one of the first descriptors
_OVERRULES = 0.04
_STEP = 0.5  # of the offset, in support slices
_MOST_OFFSETS = 512  # so that stacks of a thousand slices take no longer than they must
_LEAST_VARIANCE = 0.05  # of slices that hardly differ; their correlation says little


@dataclass(frozen=True)
class Alignment:
    """A map from query slices to support slices."""

    # (D,), where each query slice lies in the support scan, in support slices; it may lie outside
    # 0..Z-1, where the query shows more of the body
    positions: np.ndarray
    slope: float  # support slices per query slice; negative where the stacks run against each other
    similarity: float  # mean similarity along the line, what makes two scans comparable


def align(
    query: Tensor,
    support: Tensor,
    ratio: float = 1.0,
    reversed_cost: float = 0.05,
    beside: tuple[Tensor, Tensor] | None = None,
) -> Alignment:
    """Find the straight line z -> slope z + offset along which two scans look most alike.

    All lines are tried. Half of a line's score is the mean similarity of the slices that face each
    other, half their correlation, less the means of these slices alone: the mean of a scan tells
    which part of the body it shows.

    Args:
        query: descriptors (D, F) of slices.
        support: descriptors (Z, F).
        ratio: spacing of the query's slices over that of the support's, the expected slope.
        reversed_cost: taken off where the stacks run against each other; more where one stack is
            but a part of the other, which then looks much the same from either end.
        beside: other descriptors (D, G) and (Z, G) of the same slices. Where both kinds together
            clearly prefer another line, it is that one; its `similarity` is that of the first.
    """
    depth, support_depth = len(query), len(support)
    shorter, longer = sorted((depth * ratio, float(support_depth)))
    lines = []
    for direction, cost in ((1.0, 0.0), (-1.0, reversed_cost * longer / shorter)):
        for stretch in _STRETCHES:
            total = _STRETCH_COST * abs(np.log(stretch)) + cost
            lines.append(_lines(direction * ratio * stretch, total, depth, support_depth))
    scans = comparable(query, support)
    scores, similarities = _scores(lines, scans)
    index = int(scores.argmax())
    if beside is not None:
        # their product is the mean cosine of both kinds
        kinds = zip(scans, comparable(*beside), strict=True)
        left, right = (torch.cat(kind, 1) / 2**0.5 for kind in kinds)
        joint, _ = _scores(lines, (left, right))
        if joint.max() > joint[index] + _OVERRULES:
            index = int(joint.argmax())
    slopes = np.repeat([each.slope for each in lines], [len(each.positions) for each in lines])
    positions = np.concatenate([each.positions for each in lines])[index]
    return Alignment(positions, float(slopes[index]), float(similarities[index]))


class _Lines(NamedTuple):
    """Lines of one slope."""

    slope: float
    cost: float  # of the slope
    positions: np.ndarray  # (L, D)
    inside: np.ndarray  # (L, D), what lies inside the support
    missed: np.ndarray  # (L,), share of the shorter stack that does not


def _lines(slope: float, cost: float, depth: int, support_depth: int) -> _Lines:
    """All lines of a slope that keep enough of both stacks inside."""
    reach = slope * (depth - 1)
    first, last = -max(reach, 0.0), support_depth - 1 - min(reach, 0.0)
    step = max(_STEP, (last - first) / _MOST_OFFSETS)
    # the middle of both stacks is always tried, however short they are
    centre = (support_depth - 1 - reach) / 2
    offsets = centre + step * np.arange(
        -np.ceil((centre - first) / step), np.ceil((last - centre) / step) + 1
    )
    positions = slope * np.arange(depth) + offsets[:, None]
    # to within half a step: a support of one slice is met too
    inside = (positions >= -step / 2) & (positions <= support_depth - 1 + step / 2)
    count = inside.sum(1)
    most = min(depth, (support_depth - 1) / abs(slope) + 1)
    enough = count >= max(1.0, _LEAST_OVERLAP * most)
    missed = 1 - np.minimum(count[enough] / most, 1)
    return _Lines(slope, cost, positions[enough], inside[enough], missed)


def _scores(lines: list[_Lines], scans: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Of all lines the score, and the mean similarity less the slope's cost."""
    left, right = scans
    across, in_query, in_support = (
        (first @ second.T).double().numpy()
        for first, second in ((left, right), (left, left), (right, right))
    )
    depth, support_depth = across.shape
    scores, similarities = [], []
    for _, cost, positions, inside, missed in lines:
        count = inside.sum(1)
        lower, upper, share = between(positions, support_depth)
        rows = np.arange(depth)
        values = across[rows, lower] * (1 - share) + across[rows, upper] * share
        similarity = (values * inside).sum(1) / count
        # of each slice of both scans, what it weighs in the mean of those that face each other
        own = inside / count[:, None]
        faced = _sums(lower, own * (1 - share), support_depth)
        faced += _sums(upper, own * share, support_depth)
        variances = [
            np.maximum(1 - ((weights @ products) * weights).sum(1), _LEAST_VARIANCE)
            for weights, products in ((own, in_query), (faced, in_support))
        ]
        covariance = similarity - ((own @ across) * faced).sum(1)
        correlation = covariance / np.sqrt(variances[0] * variances[1])
        scores.append((similarity + correlation) / 2 - cost - _OVERLAP_COST * missed)
        similarities.append(similarity - cost)
    return np.concatenate(scores), np.concatenate(similarities)


def between(positions: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slices below and above positions, and the share of the latter; ends repeat."""
    inside = np.clip(positions, 0, depth - 1)
    lower = np.floor(inside).astype(np.int64)
    return lower, np.minimum(lower + 1, depth - 1), inside - lower


def _sums(places: np.ndarray, weights: np.ndarray, depth: int) -> np.ndarray:
    """Weights (L, D) summed by places 0..Z-1 of the same shape, (L, Z)."""
    lines = np.arange(len(places))[:, None] * depth
    total = np.bincount((lines + places).ravel(), weights.ravel(), len(places) * depth)
    return total.reshape(len(places), depth)
