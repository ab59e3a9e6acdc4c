from __future__ import annotations

import pytest
from made_records import make_record, make_row

from fsmis_components.evaluation.records import ABSENT, UNDEFINED, WHOLE_VOLUME
from fsmis_components.evaluation.report.series import Results, Series

ALPHA = Series("alpha", "1", "sections", 1)


def test_choices_are_averaged_before_structures() -> None:
    results = Results(
        [
            make_record([make_row(60, choice=0), make_row(20, structure="spleen", value=4)]),
            make_record([make_row(80, choice=1)]),
            make_record([make_row(50, case="c2")]),
        ]
    )
    assert results.dice(ALPHA, WHOLE_VOLUME, "liver") == {(0, "c1"): 70, (0, "c2"): 50}
    assert results.unit_means(ALPHA, WHOLE_VOLUME) == {(0, "c1"): 45, (0, "c2"): 50}
    assert results.dice(ALPHA, "oracle", "liver") == {}


def test_a_case_in_two_folds_is_two_units() -> None:
    results = Results([make_record([make_row(60, fold=0)]), make_record([make_row(80, fold=1)])])
    assert results.dice(ALPHA, WHOLE_VOLUME, "liver") == {(0, "c1"): 60, (1, "c1"): 80}
    assert results.cases == ["c1"]


def test_absent_counts_and_undefined_does_not() -> None:
    rows = [
        make_row(100, status=ABSENT),
        make_row(float("nan"), status=UNDEFINED, protocol="ep1-alp"),
    ]
    results = Results([make_record(rows)])
    assert results.dice(ALPHA, WHOLE_VOLUME, "liver") == {(0, "c1"): 100}
    assert results.dice(ALPHA, "ep1-alp", "liver") == {}
    assert results.pairs(ALPHA, "ep1-alp", "liver") == {}


def test_pairs_come_from_the_same_support() -> None:
    told = make_row(90, protocol="ep1-alp")
    results = Results([make_record([told, make_row(60)]), make_record([make_row(10, choice=1)])])
    assert results.pairs(ALPHA, "ep1-alp", "liver") == {(0, "c1"): (90, 60)}


@pytest.mark.parametrize(
    "protocols, told",
    [
        (("wv", "oracle", "ep1-qnet", "ep1-alp"), ["ep1-alp", "ep1-qnet"]),
        (("wv", "oracle", "ep1-qnet"), ["ep1-qnet"]),
        (("wv", "oracle"), ["oracle"]),
        (("wv",), []),
    ],
)
def test_told_protocols(protocols: tuple[str, ...], told: list[str]) -> None:
    results = Results([make_record([make_row(50, protocol=name) for name in protocols])])
    assert results.told == told
    names = [results.protocol_name(name) for name in told]
    assert len(set(names)) == len(names)


def test_names_hold_what_differs() -> None:
    rows = [
        make_row(50, method="mask_copy", setting="-"),
        make_row(50),
        make_row(50, setting="2-any", labelled="all"),
    ]
    results = Results([make_record(rows)])
    assert [results.name(series) for series in results.series] == [
        "alpha, Setting 1, 3 labelled slices",
        "alpha, Setting 2-any, all slices",
        "mask_copy, 3 labelled slices",  # the floor comes last
    ]
    assert results.full_name(ALPHA) == "alpha, Setting 1, 3 labelled slices of 1 scan"
    alone = Results([make_record([make_row(50, shots=5)])])
    assert alone.name(alone.series[0]) == "alpha"
    assert alone.full_name(alone.series[0]).endswith("of 5 scans")


def test_structures_have_the_order_and_colours_of_their_values() -> None:
    rows = [make_row(1, structure="spleen", value=4), make_row(1, structure="liver", value=1)]
    results = Results([make_record(rows)])
    assert results.structures == ["liver", "spleen"]
    assert len(set(results.colours.values())) == 2
