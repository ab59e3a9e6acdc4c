from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.inferers.z_alignment import align


def similarity(places: np.ndarray, depth: int) -> np.ndarray:
    """What scans whose looks change smoothly along z would give."""
    return np.exp(-((places[:, None] - np.arange(depth)) ** 2) / 8)


@pytest.mark.parametrize(
    ("query", "support", "slope", "offset"),
    [
        (30, 30, 1.0, 0.0),
        (30, 36, 1.0, 4.0),  # the support begins earlier
        (36, 30, 1.0, -5.0),  # the query shows more of the body
        (15, 34, 1.0, 16.0),  # half a scan
        (30, 30, -1.0, 29.0),  # from head to foot
    ],
)
def test_finds_the_line(query: int, support: int, slope: float, offset: float) -> None:
    places = slope * np.arange(query) + offset
    found = align(similarity(places, support))
    assert found.slope == pytest.approx(slope)
    assert np.abs(found.positions - places).max() <= 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (2, 3)])
def test_few_slices(shape: tuple[int, int]) -> None:
    found = align(np.ones(shape))
    assert found.positions.shape == shape[:1] and np.isfinite(found.positions).all()


def test_overlap_is_at_least_half_of_the_shorter_stack() -> None:
    # one pair of alike slices at the ends must not decide
    alike = np.zeros((20, 20))
    alike[0, 19] = 1.0
    inside = align(alike).positions
    assert ((inside >= 0) & (inside <= 19)).sum() >= 10
