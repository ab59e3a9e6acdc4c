from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from benchmark_rows import row

from fsmis_components.evaluation.records import ABSENT, Row
from fsmis_components.evaluation.summary import FLOOR, describe, paired_comparison, summarise


def only_group(rows: list[Row]) -> dict[str, Any]:
    (group,) = summarise(rows)["groups"]
    return group


def test_choices_first_then_structures_then_cases() -> None:
    rows = [
        row("1", "liver", 90),
        row("1", "liver", 70, choice=1),
        row("1", "spleen", 40),
        row("1", "spleen", 40, choice=1),
        row("2", "liver", 50),  # one choice, one structure: still one case
    ]
    group = only_group(rows)
    assert (group["choices"], group["folds"]) == ([0, 1], [0])
    assert group["structures"]["liver"]["dice"]["mean"] == pytest.approx((80 + 50) / 2)
    assert group["structures"]["liver"]["cases"] == 2
    assert group["structures"]["spleen"]["dice"] == {"mean": 40, "sd": 0, "low": 40, "high": 40}
    mean = group["mean"]
    assert mean["cases"] == 2
    assert mean["dice"]["mean"] == pytest.approx(((80 + 40) / 2 + 50) / 2)
    assert mean["dice"]["sd"] == pytest.approx(10 / math.sqrt(2))
    assert (mean["dice"]["low"], mean["dice"]["high"]) == (50, 60)
    # choice 0: ((90 + 40) / 2 + 50) / 2, choice 1: (70 + 40) / 2 of its only case
    assert group["support_choice_range"] == {"lowest": 55.0, "highest": 57.5}


def test_absent_counts_and_undefined_is_left_out() -> None:
    rows = [
        row("1", "liver", 80),
        row("1", "spleen", 0, status=ABSENT),
        row("2", "liver", 60),
        row("2", "spleen", math.nan),
        row("3", "spleen", math.nan),
    ]
    group = only_group(rows)
    spleen = group["structures"]["spleen"]
    assert (spleen["cases"], spleen["absent"], spleen["undefined"]) == (1, 1, 2)
    assert spleen["dice"]["mean"] == 0
    mean = group["mean"]
    assert (mean["cases"], mean["absent"], mean["undefined"]) == (2, 1, 2)
    assert mean["dice"]["mean"] == pytest.approx((40 + 60) / 2)


def test_wv_gap_of_ep1_or_else_of_the_oracle() -> None:
    rows = [
        row("1", "liver", 90, protocol="ep1-alp"),
        row("1", "liver", 95, protocol="oracle"),
        row("1", "liver", 60),
        row("2", "liver", 80, protocol="ep1-alp"),
        row("2", "liver", 70),
        row("2", "spleen", math.nan, protocol="ep1-alp"),
        row("2", "spleen", 0, status=ABSENT),  # EP1 has no figure to set against it
        row("1", "liver", 75, protocol="oracle", labelled="all"),
        row("1", "liver", 70, labelled="all"),
        row("1", "liver", 70, labelled="all", shots=3),  # nothing told: no gap
    ]
    told, oracle = summarise(rows)["wv_gaps"]
    assert (told["method"], told["setting"], told["labelled"]) == ("a", "1", "sections")
    assert (told["told"], told["count"], told["mean_difference"]) == ("ep1-alp", 2, 20)
    assert (told["low"], told["high"]) == (10, 30)
    assert (oracle["labelled"], oracle["told"], oracle["mean_difference"]) == ("all", "oracle", 5)


def test_methods_are_compared_within_protocol_slices_and_setting() -> None:
    rows = [
        row("1", "liver", 80),
        row("1", "liver", 85, protocol="oracle"),
        row("1", "liver", 70, setting="2-any"),
        row("1", "liver", 60, method="b", setting="2-any"),
        row("1", "liver", 50, method="b", labelled="all"),
        row("1", "liver", 40, method="c", setting="-"),
        row("1", "liver", 30, method=FLOOR, setting="-"),
    ]
    found = [
        (entry["setting"], entry["first"], entry["second"], entry["mean_difference"])
        for entry in summarise(rows)["comparisons"]
    ]
    assert found == [
        ("-", "c", FLOOR, 10),
        ("1", "a", "c", 40),
        ("1", "a", FLOOR, 50),
        ("2-any", "a", "b", 10),
        ("2-any", "a", "c", 30),
        ("2-any", "a", FLOOR, 40),
        ("2-any", "b", "c", 20),
        ("2-any", "b", FLOOR, 30),
    ]


def test_methods_are_compared_on_what_both_have() -> None:
    rows = [
        row("1", "liver", 80),
        row("1", "spleen", 0),  # b has no spleen
        row("1", "liver", 0, choice=1),  # b has no second choice
        row("2", "liver", 90),
        row("3", "liver", 0),  # b has no case 3
        row("1", "liver", 70, method="b"),
        row("2", "liver", 60, method="b"),
        row("2", "liver", 0, method="b", fold=1),  # a has no case 2 in fold 1
    ]
    (found,) = summarise(rows)["comparisons"]
    assert (found["count"], found["mean_difference"], found["p_value"]) == (2, 20, 0.5)
    apart = [row("1", "liver", 80), row("2", "liver", 70, method="b")]
    assert summarise(apart)["comparisons"] == []


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
    assert found["count"] == 3 and found["mean_difference"] == pytest.approx((1 + 6 - 1) / 3)
    assert found["low"] == -1 and found["high"] == 6
    turned = paired_comparison(second, first)
    assert (
        turned["mean_difference"] == -found["mean_difference"]
        and turned["p_value"] == found["p_value"]
    )


def test_cases_without_a_difference() -> None:
    first = {"1": 80.0, "2": 90.0, "3": 70.0}
    assert paired_comparison(first, first)["p_value"] == 1
    assert paired_comparison(first, first)["mean_difference"] == 0
    moved = {str(case): float(case + 1) for case in range(16)}
    zeros = dict.fromkeys("abcd", 0.0)
    found = paired_comparison(moved | zeros, dict.fromkeys(moved | zeros, 0.0))
    assert found["count"] == 20 and found["mean_difference"] == 6.8
    assert found["p_value"] == pytest.approx(2 / 2**16)  # exact, of the 16 that differ


def test_rounding_noise_is_no_difference() -> None:
    second = {str(case): 10.0 * case for case in range(8)}
    first = {case: value + 1e-13 for case, value in second.items()}
    assert paired_comparison(first, second)["p_value"] == 1
