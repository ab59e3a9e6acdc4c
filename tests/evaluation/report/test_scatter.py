from __future__ import annotations

from made_records import make_record, make_row

from fsmis_components.evaluation.report.scatter import mean_price, scatter_panels
from fsmis_components.evaluation.report.series import Results


def test_structures_are_averaged_before_units() -> None:
    pairs = {
        "liver": {(0, "c1"): (90.0, 80.0), (0, "c2"): (50.0, 50.0)},
        "spleen": {(0, "c1"): (70.0, 40.0)},
    }
    assert mean_price(pairs) == ((10 + 30) / 2 + 0) / 2


def test_panels_say_what_they_show() -> None:
    rows = [
        make_row(told if protocol == "oracle" else 50, protocol=protocol, structure=name)
        for name, told in (("liver", 60), ("spleen", 40), ("kidney", 80))
        for protocol in ("oracle", "wv")
    ]
    alone = make_row(30, method="beta")  # nothing to set it against
    (panel,) = scatter_panels(Results([make_record([*rows, alone])]))
    assert "alpha: whole-volume Dice against Dice under oracle extent" in panel
    assert "2 of 3 points lie below the diagonal, on average 10.0 points" in panel
