from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pytest
from html_pages import checked_page
from made_records import make_record, make_row, write_case

from fsmis_components.evaluation.records import ABSENT, UNDEFINED, CaseRecord, Row, SliceCounts
from fsmis_components.evaluation.report import write_report
from fsmis_components.evaluation.summary import summarise

TABLE = "# Table\n\n<b>[x](y)</b>\n\n| method | EP1 |\n|:--|--:|\n| alpha | 70.0 |\n"
PANEL = 'class="panel"'


def write(tmp_path: Path, records: Sequence[CaseRecord], **run: object) -> str:
    rows = [row for record in records for row in record.rows]
    path = write_report(tmp_path / "report.html", records, summarise(rows), run, TABLE)
    assert [entry.name for entry in tmp_path.glob("*.html")] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    assert not checked_page(text).addresses
    return text


def rows_of(case: str, method: str, shift: float, **fields: object) -> list[Row]:
    return [
        make_row(value - shift, method=method, case=case, protocol=protocol, **fields)
        for protocol, value in (("ep1-alp", 90), ("oracle", 85), ("wv", 80))
    ]


def test_whole_report(tmp_path: Path) -> None:
    records = [
        make_record(rows_of(case, method, 10 * index), **write_case(tmp_path, case))
        for method in ("alpha", "beta", "mask_copy")
        for index, case in enumerate(("c1", "c2", "c3"))
    ]
    text = write(tmp_path, records, commands=["benchmark.py evaluate"], threads=2)
    # boxes of one structure; a chart along z per method
    assert text.count(PANEL) == 1 + 3
    assert "2 methods and the mask copy outlined liver in 3 scans" in " ".join(text.split())
    for rank in ("Best", "Median", "Worst"):
        assert f"{rank} case:" in text
    assert text.count('<figure class="case"><img src="data:image/png;base64,') == 3
    assert '<td style="text-align: right;">70.0</td>' in text and "benchmark.py evaluate" in text
    assert "None: every case was scored." in text
    assert ">80.0</strong>" in text and ">70.0</strong>" in text and ">10.0</strong>" in text


def test_same_bytes_and_no_trace(tmp_path: Path) -> None:
    records = [make_record(rows_of("c1", "alpha", 0), **write_case(tmp_path, "c1"))]
    before = dict(matplotlib.rcParams)
    first = write(tmp_path, records)
    assert write(tmp_path, records) == first
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend() == before["backend"]


def test_whole_volume_alone_and_missing_files(tmp_path: Path) -> None:
    text = write(tmp_path, [make_record([make_row(50)])])
    assert text.count(PANEL) == 2  # boxes and z
    assert "No picture of this case" in text


def test_both_rules_have_panels_of_their_own(tmp_path: Path) -> None:
    rows = [*rows_of("c1", "alpha", 0), make_row(70, protocol="ep1-qnet")]
    text = write(tmp_path, [make_record(rows)])
    assert text.count(PANEL) == 1 + 1
    assert "EP1 (ep1-alp)" in text and "EP1 (ep1-qnet)" in text


def test_the_best_method_is_shown_by_its_first_support(tmp_path: Path) -> None:
    files = write_case(tmp_path, "c1")
    spleen = make_row(20, structure="spleen", value=4, choice=1)  # a model of its own
    records = [
        make_record([make_row(90, choice=2)], **files),
        make_record([make_row(70, choice=1)], **files),
        make_record([spleen], **files),
    ]
    text = write(tmp_path, records)
    assert "liver 70.0" in text and "spleen 20.0" in text
    assert '<span class="soft">50.0 (fold 0)' in text  # of 80 and 20


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": "gone.nii.gz"}, "gone.nii.gz: there is no such file"),
        ({"label": "gone.nii.gz"}, "gone.nii.gz: there is no such file"),
        ({"masks": {"wv/sections": "gone.nii.gz"}}, "there is no such file"),
        ({"masks": {}}, "kept no label map of liver"),
    ],
)
def test_a_missing_file_is_told(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    files = write_case(tmp_path, "c1") | fields
    text = write(tmp_path, [make_record([make_row(81.25)], **files)])
    assert "No picture of this case" in text and words in text and "liver 81.2" in text


def test_absent_structure(tmp_path: Path) -> None:
    rows = [
        *rows_of("c1", "alpha", 0),
        make_row(100, structure="spleen", value=4, status=ABSENT),
        make_row(float("nan"), structure="spleen", value=4, status=UNDEFINED, protocol="ep1-alp"),
    ]
    text = write(tmp_path, [make_record(rows)])
    assert "spleen in 1 scan" in " ".join(text.split()) and "spleen absent" in text


def test_a_structure_that_is_undefined_everywhere(tmp_path: Path) -> None:
    undefined = make_row(
        float("nan"), structure="spleen", value=4, status=UNDEFINED, protocol="ep1-alp"
    )
    record = make_record([*rows_of("c1", "alpha", 0), undefined])
    record.counts[-1] = SliceCounts()
    text = write(tmp_path, [record])
    assert text.count(PANEL) == 2 + 1  # no box plot of the spleen


def test_several_series_and_structures(tmp_path: Path) -> None:
    rows = [
        make_row(
            5.0 * value, method=f"m{number}", labelled=kind, structure=f"s{value}", value=value
        )
        for number in range(2)
        for kind in ("sections", "all")
        for value in range(1, 4)
    ]
    text = write(tmp_path, [make_record(rows)])
    assert text.count(PANEL) == (1 + 3) + 4
    assert "m1, all of 1 scan" in text


def test_names_are_text(tmp_path: Path) -> None:
    name = "<b>x</b> & $\\no$"  # between dollar signs matplotlib expects formulas
    rows = [
        make_row(50, method=name, case="<i>c</i>", structure="<u>liver</u>", setting="1"),
        make_row(60, method=name, case="<i>c</i>", structure="<u>liver</u>", protocol="ep1-alp"),
    ]
    text = write(tmp_path, [make_record(rows)], note="<s>old</s>", failures=["<q>f</q>"])
    for tag in "biusq":
        assert f"<{tag}>" not in text
    assert "&lt;b&gt;x&lt;/b&gt; &amp; $\\no$" in text


def test_failures_of_records_and_of_the_run(tmp_path: Path) -> None:
    failed = CaseRecord([], [], "i", "l", {}, 0.0, message="alpha, case c9: damaged.")
    run = {"failures": ["alpha, fold3: no spleen.", "alpha, case c9: damaged."]}
    text = write(tmp_path, [make_record(rows_of("c1", "alpha", 0)), failed], **run)
    assert "2 failures:" in text
    assert "<li>alpha, case c9: damaged.</li>\n<li>alpha, fold3: no spleen.</li>" in text


@pytest.mark.parametrize("message", ["", "alpha: damaged."])
def test_nothing_was_scored(tmp_path: Path, message: str) -> None:
    records = [CaseRecord([], [], "i", "l", {}, 0.0, message=message)]
    text = write(tmp_path, records)
    assert "No scan was scored" in text and "Tables" in text and message in text


def test_an_interrupted_write_leaves_the_former_report(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("former")
    with pytest.raises(KeyError, match="groups"):
        write_report(path, [make_record([make_row(50)])], {}, {}, TABLE)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]
