from __future__ import annotations

import itertools

import numpy as np
import pytest

from fsmis_components.evaluation.summary import describe, paired_comparison


@pytest.mark.parametrize(
    ("values", "interval"), [([0.0, 3.0, 9.0], (0, 9)), ([0.0, 0.0, 10.0, 10.0, 20.0], (2, 14))]
)
def test_the_interval_is_that_of_all_resamples(
    values: list[float], interval: tuple[float, float]
) -> None:
    """Few values have few resamples (27 and 3125), of which the bootstrap draws."""
    draws = itertools.product(values, repeat=len(values))
    means = [np.mean(draw) for draw in draws]
    assert tuple(np.percentile(means, [2.5, 97.5], method="inverted_cdf")) == interval
    spread = describe(values)
    assert (spread["low"], spread["high"]) == interval


def test_pairs_on_shared_cases_only() -> None:
    first = {"1": 80.0, "2": 90.0, "3": 70.0, "only here": 0.0}
    second = {"3": 71.0, "2": 84.0, "1": 79.0, "only there": 100.0}
    found = paired_comparison(first, second)
    assert found.count == 3 and found.mean_difference == pytest.approx((1 + 6 - 1) / 3)
    assert found.low == -1 and found.high == 6
    turned = paired_comparison(second, first)
    assert turned.mean_difference == -found.mean_difference and turned.p_value == found.p_value


def test_cases_without_a_difference() -> None:
    first = {"1": 80.0, "2": 90.0, "3": 70.0}
    assert paired_comparison(first, first).p_value == 1
    assert paired_comparison(first, first).mean_difference == 0
    moved = {str(case): float(case + 1) for case in range(16)}
    zeros = dict.fromkeys("abcd", 0.0)
    found = paired_comparison(moved | zeros, dict.fromkeys(moved | zeros, 0.0))
    assert found.count == 20 and found.mean_difference == 6.8
    assert found.p_value == pytest.approx(2 / 2**16)  # exact, of the 16 that differ


def test_rounding_noise_is_no_difference() -> None:
    second = {str(case): 10.0 * case for case in range(8)}
    first = {case: value + 1e-13 for case, value in second.items()}
    assert paired_comparison(first, second).p_value == 1
