from __future__ import annotations

import numpy as np
import pytest
from made_records import make_counts, make_row

from fsmis_components.evaluation.records import SliceCounts
from fsmis_components.evaluation.report.along_z import (
    CENTRES,
    NUM_BINS,
    mean_profile,
    nan_mean,
    profile,
)


def at(values: np.ndarray, position: float) -> float:
    return float(values[np.abs(CENTRES - position).argmin()])


def test_values_by_hand() -> None:
    """Four labelled slices lie at 1/8, 3/8, 5/8, 7/8, the false one at 1 + 1/8."""
    own = profile(make_counts())
    assert own is not None
    assert at(own.dice, 0.15) == pytest.approx(200 * 5 / 20)
    assert at(own.dice, 0.35) == pytest.approx(100)
    assert at(own.dice, 0.65) == pytest.approx(200 * 10 / 30)
    assert at(own.dice, 0.85) == pytest.approx(0)
    assert np.isfinite(own.dice).sum() == 4
    mean_area = 40 / 4
    assert at(own.predicted, 0.65) == pytest.approx(20 / mean_area)
    assert at(own.predicted, 1.15) == pytest.approx(10 / mean_area)
    assert at(own.labelled, 1.15) == 0
    assert at(own.predicted, CENTRES[0]) == 0  # the slice at -3/8 is farther than -0.3


def test_what_lies_farther_is_gathered_in_the_outermost_bins() -> None:
    own = profile(SliceCounts([0] * 6, [7, 0, 0, 0, 0, 4], [0, 0, 0, 2, 0, 0]))
    assert own is not None
    assert own.predicted[0] == pytest.approx((3.5 + 0 + 0) / 3)
    assert own.predicted[-1] == pytest.approx((0 + 2) / 2)


def test_bins_cover_positions_without_a_seam() -> None:
    """Ten slices have their centres in ten different bins."""
    own = profile(SliceCounts([1] * 10, [1] * 10, list(range(1, 11))))
    assert own is not None
    assert np.isfinite(own.dice).sum() == 10
    assert len(CENTRES) == NUM_BINS and CENTRES[1] == pytest.approx(-0.25)


def test_a_position_on_a_border_belongs_to_the_bin_above() -> None:
    """Five slices lie at 0.1, 0.3, 0.5, 0.7, 0.9, which binary numbers only come near."""
    own = profile(SliceCounts([1] * 5, [1] * 5, [1] * 5))
    assert own is not None
    np.testing.assert_allclose(
        CENTRES[np.isfinite(own.dice)], [0.15, 0.35, 0.55, 0.75, 0.95], atol=1e-9
    )


def test_a_slice_with_neither_has_no_dice() -> None:
    own = profile(SliceCounts([3, 0, 3], [3, 0, 3], [3, 0, 3]))
    assert own is not None
    assert np.isnan(at(own.dice, 0.55)) and at(own.dice, 0.15) == 100
    assert at(own.predicted, 0.55) == 0


@pytest.mark.parametrize("counts", [SliceCounts(), SliceCounts([0, 0], [4, 0], [0, 0])])
def test_without_a_label_there_is_no_profile(counts: SliceCounts) -> None:
    assert profile(counts) is None
    assert mean_profile([(make_row(0), counts)]) is None


def test_choices_are_averaged_before_cases() -> None:
    good = SliceCounts([8], [8], [8])
    bad = SliceCounts([0], [8], [8])
    rows = [(make_row(0, choice=choice), good) for choice in range(3)]
    own = mean_profile([*rows, (make_row(0, case="c2"), bad)])
    assert own is not None
    assert at(own.dice, 0.55) == pytest.approx(50)


def test_nan_mean_does_not_warn() -> None:
    values = np.array([[1, np.nan, 3], [3, np.nan, np.nan]])
    np.testing.assert_array_equal(nan_mean(values), [2, np.nan, 3])
