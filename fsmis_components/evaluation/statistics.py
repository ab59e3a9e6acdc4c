"""Numbers over cases: mean, spread, bootstrap interval, and the paired test of two methods.

The same values give the same bits, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

SAMPLES = 10_000
CONFIDENCE = 0.95
# Percents that differ by less are equal: rounding noise must not become a rank of the test.
_DECIMALS = 9


@dataclass(frozen=True)
class Spread:
    """What a list of values says about its mean.

    Attributes:
        mean: their mean.
        sd: standard deviation of the sample (n - 1); 0 for one value.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: upper end.
        count: how many values there are.
    """

    mean: float
    sd: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """Two methods on the cases that both have.

    Attributes:
        count: cases; below 6 the p-value cannot fall below 0.05.
        mean_difference: mean of first minus second.
        low: lower end of the 95 % bootstrap interval of the mean difference.
        high: upper end.
        p_value: two-sided Wilcoxon signed-rank test; 1 where all differences are zero.
    """

    count: int
    mean_difference: float
    low: float
    high: float
    p_value: float


def describe(values: Iterable[float], *, seed: int = 0, samples: int = SAMPLES) -> Spread:
    """Mean, standard deviation and 95 % percentile-bootstrap interval of the mean.

    Args:
        values: one per case.
        seed: of the resampling.
        samples: resamples of the bootstrap.

    Returns:
        The spread; of one value, or of equal ones, the interval is the value.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    ordered = np.sort(np.asarray(list(values), float))
    if not len(ordered) or not np.isfinite(ordered).all():
        raise ValueError(f"describe: expected one or more finite values, got {ordered.tolist()}")
    if ordered[0] == ordered[-1]:  # nothing to resample; the mean of equal values may be rounded
        value = float(ordered[0])
        return Spread(value, 0.0, value, value, len(ordered))
    interval = stats.bootstrap(
        (ordered,),
        np.mean,
        n_resamples=samples,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(seed),  # SciPy below 1.15 does not know `rng`
    ).confidence_interval
    return Spread(
        mean=float(ordered.mean()),
        sd=float(ordered.std(ddof=1)),
        low=float(interval.low),
        high=float(interval.high),
        count=len(ordered),
    )


def paired_comparison(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """First minus second on the cases that both have.

    The Wilcoxon test discards cases without a difference (Wilcoxon's own rule, SciPy's
    ``zero_method="wilcox"``); they stay in the mean and in `count`. SciPy takes the exact
    distribution for up to 50 cases without ties.

    Args:
        first: figure per case.
        second: figure per case of the other method.

    Raises:
        ValueError: no case is in both, or a figure is not finite.
    """
    shared = [case for case in first if case in second]
    if not shared:
        raise ValueError("paired_comparison: expected cases that both methods have, got none")
    differences = np.round([first[case] - second[case] for case in shared], _DECIMALS)
    spread = describe(differences)
    moved = np.sort(differences[differences != 0])
    p_value = stats.wilcoxon(moved, zero_method="wilcox").pvalue if len(moved) else 1.0
    return Comparison(spread.count, spread.mean, spread.low, spread.high, float(p_value))
