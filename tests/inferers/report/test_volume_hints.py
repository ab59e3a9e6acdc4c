from __future__ import annotations

import math

import pytest

from fsmis_components.inferers.report.volume_hints import summarise_volumes, volume_hints
from fsmis_components.inferers.run_record import DONE, FAILED, CaseRow


def rows(*volumes: float) -> list[CaseRow]:
    return [
        CaseRow(f"image_{index}", DONE, 1.0, {"liver": volume})
        for index, volume in enumerate(volumes)
    ]


def hints(*volumes: float) -> list[str]:
    made = rows(*volumes)
    summaries = summarise_volumes(made, ["liver"])
    return [volume_hints(row, summaries).get("liver", "") for row in made]


def test_summary_counts_finished_scans_alone() -> None:
    made = [*rows(30.0, 0.0, 10.0, 20.0), CaseRow("image_9", FAILED, 0.0, {}, "damaged")]
    summary = summarise_volumes(made, ["liver"])["liver"]
    assert summary.found == (10.0, 20.0, 30.0) and summary.missing == 1 and summary.median == 20
    assert math.isnan(summarise_volumes([], ["liver"])["liver"].median)


def test_half_is_as_far_as_double() -> None:
    # the median of the logarithms' deviations is 0, so a tenth is the unit: exp(0.35) = 1.419
    assert hints(100, 100, 100, 100, 100, 141) == [""] * 6
    assert hints(100, 100, 100, 100, 100, 142)[-1] == "1.4 times the median of 100.0 ml"
    assert hints(100, 100, 100, 100, 100, 71) == [""] * 6
    assert hints(100, 100, 100, 100, 100, 70)[-1] == "0.7 times the median of 100.0 ml"


def test_a_folder_that_varies_allows_more() -> None:
    assert not any(hints(50, 70, 100, 140, 200, 300))
    assert hints(50, 70, 100, 140, 200, 3000)[-1].startswith("25 times")


def test_few_scans_make_no_outlier_but_show_what_is_missing() -> None:
    assert hints(100, 100, 100, 1000) == [""] * 4
    assert hints(100, 0, 100, 100, 1000) == ["", "not found", "", "", ""]


@pytest.mark.parametrize("row", [CaseRow("a", FAILED, 0.0, {}, "damaged")])
def test_a_failed_scan_has_no_hint(row: CaseRow) -> None:
    assert volume_hints(row, summarise_volumes([row], ["liver"])) == {}
