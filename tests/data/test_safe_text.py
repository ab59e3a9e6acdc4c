from __future__ import annotations

import csv
import io

import pytest

from fsmis_components.data.safe_text import DEEPEST, csv_table, parse_json


@pytest.mark.parametrize(
    "cell",
    [
        *("=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "＝1", "-", "=", "-image_2"),
        *('=HYPERLINK("http://a","b")', "-1_000", "+1e", "--1"),
    ],
)
def test_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(cell: str) -> None:
    [[shown, beside]] = csv.reader(io.StringIO(csv_table([[cell, "x"]]), newline=""))
    assert shown.startswith("'") and beside == "x"
    assert shown.replace("'", "") == cell.replace("\r", " ")


def test_also_where_a_spreadsheet_ends_a_cell_at_a_semicolon_or_a_line() -> None:
    [[shown]] = csv.reader(io.StringIO(csv_table([["a;=1;b\n@c; -d"]]), newline=""))
    assert shown == "a;'=1;b\n'@c; -d"


def test_numbers_and_plain_text_stay_as_they_are() -> None:
    rows = [[1, -2.5, "-0.0500", "+1e-3", "-.5"], ["image_2", "a-b=c", "", "1+2", 'ä, "b"']]
    assert csv_table(rows) == ('1,-2.5,-0.0500,+1e-3,-.5\nimage_2,a-b=c,,1+2,"ä, ""b"""\n')


def nested(depth: int, inner: str = "0") -> str:
    return '{"a": [' * (depth // 2) + inner + "]}" * (depth // 2)


def test_reads_what_is_json() -> None:
    assert parse_json('{"a": [1, null, "x"]}') == {"a": [1, None, "x"]}
    assert parse_json(b"7") == 7
    assert parse_json(nested(DEEPEST))


@pytest.mark.parametrize("depth", [DEEPEST + 2, 900, 100_000])
def test_nesting_has_a_limit(depth: int) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {DEEPEST} levels"):
        parse_json(nested(depth))
