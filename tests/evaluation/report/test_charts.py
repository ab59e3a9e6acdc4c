from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_records import make_counts, make_row

from fsmis_components.evaluation.charts import CENTRES, box_chart, mean_profile
from fsmis_components.evaluation.records import SliceCounts


def profile(*cases: tuple[dict[str, object], SliceCounts]) -> pd.DataFrame | None:
    rows = pd.DataFrame([vars(make_row(0, **fields)) for fields, _ in cases])
    return mean_profile(rows.assign(row=range(len(cases))), [counts for _, counts in cases])


def at(own: pd.DataFrame, place: float, name: str) -> float:
    return float(own[name][int(np.argmin(np.abs(CENTRES - place)))])


def test_places_are_relative_to_the_label() -> None:
    own = profile(({}, make_counts()))
    assert own is not None and len(own) == len(CENTRES)
    # slices 2 to 5 lie at 1/8, 3/8, 5/8 and 7/8 of the structure; its mean area is 10
    dice = [at(own, place, "dice") for place in (0.15, 0.35, 0.65, 0.85)]
    assert dice == pytest.approx([50, 100, 200 * 10 / 30, 0])
    assert at(own, 0.65, "predicted") == 2 and at(own, 0.15, "labelled") == 1.5
    # slice 6 lies at 9/8: nothing is labelled there, and no Dice is defined
    assert at(own, 1.15, "predicted") == 1 and at(own, 1.15, "labelled") == 0
    assert math.isnan(at(own, 1.15, "dice")) and math.isnan(at(own, 0.5, "dice"))
    # slice 0 lies at -3/8: farther than the last place
    assert at(own, -0.35, "predicted") == 0 and own.labelled.iloc[-1] == 0


def test_choices_of_support_are_averaged_before_cases() -> None:
    def counts(overlap: int) -> SliceCounts:
        return SliceCounts([overlap], [10], [10])

    own = profile(
        ({"choice": 0}, counts(10)), ({"choice": 1}, counts(0)), ({"case": "c2"}, counts(0))
    )
    assert own is not None and at(own, 0.55, "dice") == pytest.approx(25)  # of 50 and 0


def test_without_a_label_there_is_no_profile() -> None:
    assert profile(({}, SliceCounts([0, 0], [3, 0], [0, 0]))) is None


def test_a_chart_tells_its_figures_in_words() -> None:
    chart = box_chart("liver", [("a" * 60, "wv", [10.0, 20.0, 60.0])])
    assert chart["data"].startswith("data:image/svg+xml;base64,")
    assert "median 20.0, mean 30.0" in chart["alt"]
    assert box_chart("liver", [("a" * 60, "wv", [10.0, 20.0, 60.0])]) == chart
