from __future__ import annotations

import re
from typing import Any

import pytest
from benchmark_rows import row

from fsmis_components.evaluation.records import FIGURES, Row
from fsmis_components.evaluation.summary import summarise
from fsmis_components.evaluation.tables import markdown_table

RUN = {
    "commands": ["python tools/benchmark.py evaluate --folds 0"],
    "failures": ["a, fold1: the scan is\nbroken"],
    "weights": {"a fold0": "0123"},
    "dropped_slices": {"2,3": {"dropped": 45, "of": 100}},
    "data_hash": "89ab",
    "threads": 2,
    "date": None,
}


def rows_of(
    method: str, setting: str, dice: float, protocol: str = "wv", **other: Any
) -> list[Row]:
    """Cases 1 and 2 of fold 0 with `dice` - 10 and `dice` + 10."""
    known = {"method": method, "setting": setting, "protocol": protocol, **other}
    known |= dict.fromkeys(FIGURES[1:], 7.25)
    return [row(case, "liver", dice + step, **known) for case, step in (("1", -10), ("2", 10))]


ROWS = [
    *rows_of("a", "1", 80, "ep1-alp"),
    *rows_of("a", "1", 85, "oracle"),
    *rows_of("a", "1", 60),
    *rows_of("a", "1", 62, choice=1),
    *rows_of("a", "1", 75, "oracle", labelled="all", shots=3),
    *rows_of("a", "1", 70, labelled="all", shots=3),
    *rows_of("a", "2-any", 55),
    *rows_of("mask_copy", "-", 30),
]


def section(page: str, title: str) -> list[str]:
    """Cells of the lines of the table below a heading, with bars; the dashes are left out."""
    texts = re.split(r"^#+ ", page, flags=re.MULTILINE)
    text = next(part for part in texts if part.startswith(title))
    lines = [line.strip("| ") for line in text.splitlines() if line.startswith("|")]
    return [lines[0], *lines[2:]]


@pytest.fixture(scope="module")
def page() -> str:
    return markdown_table(summarise(ROWS), RUN)


def test_each_fold_is_a_column() -> None:
    rows = [
        *rows_of("a", "1", 80, "ep1-alp"),
        *rows_of("a", "1", 60, "ep1-alp", fold=2),
        *rows_of("a", "1", 50),
    ]
    page = markdown_table(summarise(rows), {})
    assert section(page, "Dice in % per fold") == [
        "method | labelled slices | protocol | fold 0 | fold 2",
        "a | 3 of 1 scan | EP1 (`ep1-alp`) | 80.0 | 60.0",
        "a | 3 of 1 scan | whole volume | 50.0 | –",
    ]


def test_protocols_side_by_side_floor_first(page: str) -> None:
    title, *rows = section(page, "Dice in %, mean over structures")
    protocols = "EP1 (`ep1-alp`) | oracle extent | whole volume | WV gap"
    assert title == f"method | labelled slices | {protocols}"
    assert rows == [
        "mask_copy | 3 of 1 scan | – | – | 30.0 [20.0, 40.0] | –",
        # the gap is of choice 0, the only one that EP1 has
        "a | 3 of 1 scan | 80.0 [70.0, 90.0] | 85.0 [75.0, 95.0] | 61.0 [51.0, 71.0] | "
        "20.0 [20.0, 20.0]",
        "a | all of 3 scans | – | 75.0 [65.0, 85.0] | 70.0 [60.0, 80.0] | 5.0 [5.0, 5.0] (oracle)",
    ]


def test_per_structure_and_other_figures(page: str) -> None:
    assert section(page, "Dice in % per structure, EP1 (`ep1-alp`)") == [
        "method | labelled slices | liver | mean",
        "a | 3 of 1 scan | 80.0 ± 14.1 | 80.0 ± 14.1",  # of -10 and +10
    ]
    _, *blind = section(page, "Dice in % per structure, whole volume")
    assert [line.split(" | ")[2] for line in blind] == [f"{m} ± 14.1" for m in (30.0, 61.0, 70.0)]
    titles, first, *_ = section(page, "Other figures, whole volume")
    figures = "HD95, mm | precision, % | recall, % | extent error, slices | false positives, ml"
    assert titles.endswith(f" | NSD 2 mm, % | {figures}")
    assert first.endswith(" | ".join(["7.2 ± 0.0"] * 6))


def test_comparisons(page: str) -> None:
    difference = "first minus second [95 % interval]"
    assert section(page, "Dice of two methods, case by case, whole volume") == [
        f"first | second | labelled slices | {difference} | Wilcoxon p | cases",
        "a | mask_copy | 3 of 1 scan | 30.0 [30.0, 30.0] | 0.500 | 2",
    ]


def test_two_rules_two_columns() -> None:
    rows = [*rows_of("a", "1", 80, "ep1-alp"), *rows_of("a", "1", 75, "ep1-qnet", fold=1)]
    rows += [*rows_of("a", "1", 60), *rows_of("a", "1", 65, fold=1)]
    page = markdown_table(summarise(rows), {})
    lines = section(page, "Dice in %, mean over structures")
    cells = dict(zip(*(line.split(" | ") for line in lines), strict=True))
    assert cells["EP1 (`ep1-alp`)"].startswith("80.0 ")
    assert cells["EP1 (`ep1-qnet`)"].startswith("75.0 ")
    assert cells["WV gap (`ep1-alp`)"].startswith("20.0 ")
    assert cells["WV gap (`ep1-qnet`)"].startswith("10.0 ")
    assert len(section(page, "Dice in % per structure, EP1 (`ep1-qnet`)")) == 2
    assert "- `ep1-alp`:" in page and "- `ep1-qnet`:" in page


def test_notes_failures_and_provenance(page: str) -> None:
    for line in (
        "- a, fold1: the scan is broken",
        "- 2,3: 45 of 100 slices",
        "  - `python tools/benchmark.py evaluate --folds 0`",
        "  - a fold0: `0123`",
        "- data_hash: `89ab`",
        "- threads: `2`",
    ):
        assert line in page.splitlines()
    assert "- date" not in page and not re.search(r"\b(None|nan)\b", page)
    assert "the whole volume is what a user gets" in page
    assert "`ep1-qnet`" not in page
