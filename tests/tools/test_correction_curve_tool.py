from __future__ import annotations

import correction_curve
from fsmis_components.evaluation.correction_curve import CurvePoint


def test_table_of_means_and_of_the_least_gain() -> None:
    dice = {("a", 0): (50, 70), ("a", 2): (60, 90), ("b", 0): (80, 40), ("b", 2): (70, 60)}
    points = [
        CurvePoint(case, count, name, value)
        for (case, count), values in dice.items()
        for name, value in zip(("liver", "spleen"), values, strict=True)
    ]
    assert correction_curve.curve_table(points).splitlines()[2:] == [
        "| 0 | 65.0 | 55.0 | 60.0 | 0.0 |",
        "| 2 | 65.0 | 75.0 | 70.0 | 5.0 |",  # a gains 15, b gains 5
    ]
