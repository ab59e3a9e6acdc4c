from __future__ import annotations

import pytest
from made_records import make_record, make_row

from fsmis_components.evaluation.records import UNDEFINED, Row
from fsmis_components.evaluation.report.headline import cards, find_headline, standings
from fsmis_components.evaluation.report.series import Results
from fsmis_components.evaluation.summary import summarise


def both(method: str, told: float, blind: float, **kwargs: object) -> list[Row]:
    return [
        make_row(told, method=method, protocol="ep1-alp", **kwargs),
        make_row(blind, method=method, **kwargs),
    ]


def headline_of(rows: list[Row]):
    results = Results([make_record([row for row in rows if row.case == c]) for c in ("c1", "c2")])
    summary = summarise(rows)
    return find_headline(results, summary), results, summary


def test_best_method_with_gap_and_floor() -> None:
    rows = both("alpha", 70, 50) + both("beta", 60, 55) + both("mask_copy", 90, 80, setting="-")
    headline, results, summary = headline_of(rows)
    assert headline is not None
    assert headline.series.method == "beta"  # by the whole volume; the floor is no candidate
    assert (headline.told, headline.blind, headline.gap) == (60, 55, 5)
    assert (headline.floor_told, headline.floor_blind) == (90, 80)
    html = cards(headline, results)
    assert [html.index(number) for number in (">60.0<", ">55.0<", ">5.0<", ">90.0<")]
    assert "(whole volume: 80.0)" in html
    assert standings(results, summary).count('class="track"') == 3


def test_gap_is_taken_on_what_both_have() -> None:
    rows = [
        *both("alpha", 70, 50),
        make_row(float("nan"), protocol="ep1-alp", case="c2", status=UNDEFINED),
        make_row(10, case="c2"),
    ]
    headline, *_ = headline_of(rows)
    assert headline is not None
    assert (headline.told, headline.blind, headline.gap) == (70, 30, 20)


def test_whole_volume_alone() -> None:
    headline, results, summary = headline_of([make_row(40)])
    assert headline is not None
    assert (headline.told_protocol, headline.told, headline.gap) == (None, None, None)
    assert cards(headline, results).count('class="card"') == 1
    assert ">40.0<" in standings(results, summary)


def test_the_floor_with_the_same_labelled_slices_is_taken() -> None:
    rows = [
        make_row(50),
        make_row(30, method="mask_copy", setting="-", labelled="all"),
        make_row(20, method="mask_copy", setting="-"),
    ]
    headline, *_ = headline_of(rows)
    assert headline is not None and headline.floor_blind == 20


def test_only_the_floor() -> None:
    headline, *_ = headline_of(both("mask_copy", 40, 30, setting="-"))
    assert headline is not None and headline.series.is_floor
    assert headline.floor_blind is None


@pytest.mark.parametrize("rows", [[], [make_row(50, protocol="ep1-alp")]])
def test_nothing_over_the_whole_volume(rows: list[Row]) -> None:
    assert headline_of(rows)[0] is None
