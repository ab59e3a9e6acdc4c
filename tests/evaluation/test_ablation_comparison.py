"""Numbers and tables of ablations, on figures that are small enough to check by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from fsmis_components.evaluation.ablation.comparison import (
    BETTER,
    NEITHER,
    WORSE,
    compare,
    verdict,
)
from fsmis_components.evaluation.ablation.figures import PROTOCOLS, collect, write_cases
from fsmis_components.evaluation.ablation.folder import FinishedFold
from fsmis_components.evaluation.ablation.plan import Piece, read_ablation_plan
from fsmis_components.evaluation.ablation.tables import ablation_page
from fsmis_components.evaluation.records import (
    ABSENT,
    SCORED,
    UNDEFINED,
    CaseRecord,
    Row,
    SliceCounts,
)

PLAN = read_ablation_plan(
    {
        "folds": [0, 3],
        "seeds": [1, 2],
        "reference": "full",
        "stages": [{"epochs": 2}],
        "variants": {"full": {}, "without A": {"a": False}, "without B": {"b": "x|y"}},
    }
)
FULL = SliceCounts([1, 1], [2, 2], [2, 2])
NOTHING = SliceCounts([0, 0], [0, 0], [2, 2])


def finished(variant: str, seed: int, fold: int, cases: list[str]) -> FinishedFold:
    return FinishedFold(variant, seed, fold, 1234, "abc", cases, {"seconds": 1.0}, {"code": "c"})


def record(
    variant: str, seed: int, fold: int, case: str, dice: dict[str, float], hd95: float = 10.0,
    counts: SliceCounts = FULL, status: str = SCORED,
) -> CaseRecord:  # fmt: skip
    """Every protocol with the same figures."""
    rows = [
        Row(
            *(Piece(variant, seed).title, "1", fold, 0, 1, "support", "sections", protocol, case),
            *(structure, 1, status, value, 90.0, hd95, 90.0, 90.0, 0.0, 0.0),
        )
        for protocol in PROTOCOLS
        for structure, value in dice.items()
    ]
    return CaseRecord(rows, [counts] * len(rows), "i.nii.gz", "l.nii.gz", {}, 1.0)


def difference(numbers: dict[str, Any], variant: str, measure: str = "wv_dice") -> dict[str, Any]:
    (entry,) = (
        one
        for one in numbers["differences"]
        if (one["variant"], one["measure"]) == (variant, measure)
    )
    return entry


def numbers_of(
    records: list[CaseRecord], folds: list[FinishedFold]
) -> tuple[dict[str, Any], dict[str, Any]]:
    table = collect(records, folds)
    return compare(PLAN, table, folds), table


def test_structures_then_seeds_are_averaged_before_cases() -> None:
    """Case 1: 80 and 90 against 70 and 76; case 2 of fold 3: 60 against 61."""
    records = [
        record("full", 1, 0, "1", {"liver": 70.0, "spleen": 90.0}),
        record("full", 2, 0, "1", {"liver": 85.0, "spleen": 95.0}),
        record("full", 1, 3, "2", {"liver": 50.0, "spleen": 70.0}),
        record("without A", 1, 0, "1", {"liver": 60.0, "spleen": 80.0}),
        record("without A", 2, 0, "1", {"liver": 72.0, "spleen": 80.0}),
        record("without A", 1, 3, "2", {"liver": 51.0, "spleen": 71.0}),
    ]
    folds = [
        finished(variant, seed, fold, [case])
        for variant in ("full", "without A")
        for seed, fold, case in ((1, 0, "1"), (2, 0, "1"), (1, 3, "2"))
    ]
    numbers, _ = numbers_of(records, folds)
    entry = difference(numbers, "without A")
    assert entry["count"] == 2  # cases, though there are three trainings and four structures
    assert entry["reference_mean"] == (85 + 60) / 2 and entry["variant_mean"] == (73 + 61) / 2
    assert entry["mean_difference"] == (12 - 1) / 2
    assert (entry["low"], entry["high"]) == (-1, 12)
    assert entry["per_seed"] == {"1": (10 - 1) / 2, "2": 14} and entry["seeds_agree"]
    assert entry["per_fold"] == {"0": 12, "3": -1}
    assert entry["verdict"] == NEITHER
    assert numbers["variants"]["full"]["figures"]["wv_dice"]["mean"] == 72.5
    assert numbers["variants"]["full"]["seeds_of_fold"] == {"0": [1, 2], "3": [1]}
    assert numbers["missing"] == [
        *("without B, seed 1, fold 0", "without B, seed 1, fold 3"),
        *("full, seed 2, fold 3", "without A, seed 2, fold 3"),
        *("without B, seed 2, fold 0", "without B, seed 2, fold 3"),
    ]
    assert {one["variant"] for one in numbers["differences"]} == {"without A"}


def test_only_what_both_have_is_compared() -> None:
    records = [
        record("full", 1, 0, "1", {"liver": 70.0}),
        record("full", 2, 0, "1", {"liver": 90.0}),
        record("without B", 2, 0, "1", {"liver": 80.0}),
        record("without B", 2, 3, "2", {"liver": 0.0}),
    ]
    folds = [finished("full", 1, 0, ["1"]), finished("full", 2, 0, ["1"])]
    folds += [finished("without B", 2, 0, ["1"]), finished("without B", 2, 3, ["2"])]
    numbers, table = numbers_of(records, folds)
    entry = difference(numbers, "without B")
    assert (entry["mean_difference"], entry["count"], entry["per_seed"]) == (10, 1, {"2": 10})
    assert entry["verdict"] == WORSE
    # a fold without the note that it is finished is in no figure
    assert collect(records, folds[:2]) == {key: t for key, t in table.items() if key[0] == "full"}


def test_a_shorter_distance_counts_as_better() -> None:
    records = [
        record("full", 1, 0, "1", {"liver": 70.0}, hd95=5.0),
        record("without A", 1, 0, "1", {"liver": 70.0}, hd95=9.0),
        record("without B", 1, 0, "1", {"liver": 70.0}, hd95=4.0),
    ]
    folds = [finished(variant, 1, 0, ["1"]) for variant in PLAN.variants]
    numbers, _ = numbers_of(records, folds)
    for variant, worth, words in (("without A", 4.0, WORSE), ("without B", -1.0, BETTER)):
        for measure in ("ep1_hd95_mm", "wv_hd95_mm", "wv_hd95_mm_both_found"):
            entry = difference(numbers, variant, measure)
            assert (entry["mean_difference"], entry["verdict"]) == (worth, words)
        assert difference(numbers, variant)["verdict"] == NEITHER  # Dice is the same
        assert difference(numbers, variant)["p_value"] == 1


def test_distances_to_nothing_are_counted_and_left_out_of_the_second_comparison() -> None:
    records = [
        record("full", 1, 0, "1", {"liver": 70.0, "spleen": 70.0}, hd95=5.0),
        record("full", 1, 0, "2", {"liver": 70.0}, hd95=5.0),
        record("without A", 1, 0, "1", {"liver": 0.0}, hd95=400.0, counts=NOTHING),
        record("without A", 1, 0, "1", {"spleen": 70.0}, hd95=8.0),
        record("without A", 1, 0, "2", {"liver": 0.0}, hd95=400.0, counts=NOTHING),
    ]
    folds = [finished(variant, 1, 0, ["1", "2"]) for variant in ("full", "without A")]
    numbers, table = numbers_of(records, folds)
    assert numbers["variants"]["without A"]["counts"]["wv"] == {
        "scored": 3,
        "penalised": 2,
        "undefined": 0,
    }
    assert numbers["variants"]["full"]["counts"]["wv"]["penalised"] == 0
    entry = difference(numbers, "without A", "wv_hd95_mm")
    assert entry["mean_difference"] == ((204 - 5) + (400 - 5)) / 2
    entry = difference(numbers, "without A", "wv_hd95_mm_both_found")
    assert (entry["mean_difference"], entry["count"], entry["structures"]) == (3, 1, 1)
    page = ablation_page(PLAN, numbers, {"bundle": "cow"})
    assert "without penalised structures" in page and "| 2 of 3 | 2 of 3 | 0 |" in page
    lines = list(csv.DictReader(io.StringIO(write_cases(table, folds))))
    assert [line["wv_penalised"] for line in lines] == ["0", "0", "1", "1"]
    assert (lines[2]["wv_dice"], lines[2]["wv_hd95_mm"]) == ("35.0000", "204.0000")


def test_an_absent_structure_is_penalised_where_something_is_predicted() -> None:
    found, true = SliceCounts([0], [3], [0]), SliceCounts([0], [0], [0])
    records = [
        record("full", 1, 0, "1", {"liver": 100.0}, hd95=0.0, counts=true, status=ABSENT),
        record("full", 2, 0, "1", {"liver": 0.0}, hd95=400.0, counts=found, status=ABSENT),
    ]
    folds = [finished("full", seed, 0, ["1"]) for seed in (1, 2)]
    numbers, _ = numbers_of(records, folds)
    assert numbers["variants"]["full"]["counts"]["wv"]["penalised"] == 1


def test_what_ep1_cannot_score_is_counted_and_in_no_mean() -> None:
    nan = float("nan")
    records = [
        record("full", 1, 0, "1", {"liver": 70.0}),
        record("full", 1, 0, "1", {"spleen": nan}, hd95=nan, status=UNDEFINED),
        record("full", 1, 0, "2", {"spleen": nan}, hd95=nan, status=UNDEFINED),
    ]
    folds = [finished("full", 1, 0, ["1", "2"])]
    numbers, table = numbers_of(records, folds)
    full = numbers["variants"]["full"]
    assert full["counts"]["ep1-alp"] == {"scored": 1, "penalised": 0, "undefined": 2}
    assert full["figures"]["ep1_dice"]["mean"] == 70 and full["figures"]["ep1_dice"]["count"] == 1
    lines = list(csv.DictReader(io.StringIO(write_cases(table, folds))))
    assert [line["ep1_structures"] for line in lines] == ["1", "0"]
    assert lines[1]["ep1_dice"] == lines[1]["ep1_hd95_mm"] == ""
    assert numbers["variants"]["without A"]["figures"]["ep1_dice"] is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 2.0, WORSE),
        (-2.0, -0.1, BETTER),
        (-1.0, 1.0, NEITHER),
        (0.0, 1.0, NEITHER),
        (0.0, 0.0, NEITHER),
    ],
)
def test_words(low: float, high: float, words: str) -> None:
    assert verdict(low, high) == words


def test_a_step_of_the_ladder_is_compared_with_the_one_before() -> None:
    """70, then 74, then 71: the first part adds 4, the second costs 3."""
    names = ("without A", "full", "without B")
    plan = replace(PLAN, ladder=names)
    records = [
        record(name, 1, 0, "1", {"liver": dice})
        for name, dice in zip(names, (70.0, 74.0, 71.0), strict=True)
    ]
    folds = [finished(name, 1, 0, ["1"]) for name in names]
    numbers = compare(plan, collect(records, folds), folds)
    steps = [one for one in numbers["steps"] if one["measure"] == "wv_dice"]
    assert [(one["variant"], one["reference"], one["mean_difference"]) for one in steps] == [
        ("without A", "full", 4.0),
        ("full", "without B", -3.0),
    ]
    page = ablation_page(plan, numbers, {})
    assert "## What a step adds: Dice, whole volume, in points of percent" in page
    assert "| step | with it | the step before | difference [95 %] |" in page
    assert "| without B | 71.0 | 74.0 | -3.0 [-3.0, -3.0] |" in page


def test_the_page_says_all_of_it() -> None:
    """The part is worth 5 in both cases: +12 with one seed, -2 with the other."""
    records, folds = [], []
    for seed, dice in ((1, 62.0), (2, 76.0)):
        for fold in (0, 3):
            records.append(record("full", seed, fold, "1", {"liver": 74.0}))
            records.append(record("without A", seed, fold, "1", {"liver": dice}))
            folds += [finished(variant, seed, fold, ["1"]) for variant in ("full", "without A")]
    numbers, _ = numbers_of(records, folds)
    page = ablation_page(PLAN, numbers, {"bundle": "cow", "code": ["one", "two"], "dataset": []})
    assert page.startswith("# Ablation: what each part of cow is worth\n")
    assert "- without B, seed 1, fold 0\n" in page
    assert "| full (reference) | – | 1,234 | 4 of 4 | 74.0 | 74.0 | 10.0 | 10.0 | 0 of 4 |" in page
    assert '| without B | `{"b": "x\\|y"}` | – | 0 of 4 | – |' in page
    assert (
        "| without A | 74.0 | 69.0 | +5.0 [5.0, 5.0] | 0.500 | 2 | +12.0 | -2.0 | +5.0 | +5.0 | "
        "worse without it, but seeds differ in sign |"
    ) in page
    assert "reference minus variant" in page and "diagonal of the volume" in page
    assert "without penalised structures" not in page  # nothing is penalised
    assert "What a step adds" not in page  # the plan has no ladder
    assert (
        '- `{"epochs": 2}`' in page and "- code: `one`; `two`" in page and "- dataset" not in page
    )
