"""From results folders to tables and a page: what it shows, and that nothing in it runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import nibabel
import numpy as np
import pytest
from benchmark_rows import row
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from html_pages import checked_page

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import CaseRecord, Row
from fsmis_components.evaluation.report import note_run, write_report, write_results
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.bundle import NetworkSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy

FILES = ["table.md", "report.html", "cases.csv", "summary.json"]
TABLE = "# Table\n\n<b>[x](y)</b>\n\n| method | EP1 |\n|:--|--:|\n| alpha | 70.0 |\n"
PICTURE = '<figure class="case"><img src="data:image/png;base64,'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the results `floor` and `network`."""
    folder = tmp_path_factory.mktemp("results")
    for number in range(1, 7):
        write_scan(folder / "d", number, block_label())
    plan = Plan(
        find_cases(folder / "d", labels="required"),
        RULES["ep1-alp"],
        [0],
        num_folds=3,
        geometry={"spatial_size": 24},
    )
    for name, subject in (
        ("floor", MaskCopy()),
        ("network", NetworkSubject(IntensityNetwork(), geometry={"spatial_size": 24})),
    ):
        run_benchmark([subject], plan, folder / name, progress=False)
        note_run(folder / name, f"benchmark {name}", [])
    return folder


def test_files_of_joined_results(results: Path, tmp_path: Path) -> None:
    paths = write_results([results / "floor", results / "network"], tmp_path)
    assert [path.name for path in paths] == FILES
    table = paths[0].read_text()
    assert "mask_copy" in table and "benchmark floor" in table and "ep1-alp" in table
    rows = list(csv.DictReader(paths[2].open()))
    assert len(rows) == 2 * 2 * 2 * 5  # subjects, cases, structures, protocols
    summary = json.loads(paths[3].read_text())
    assert {group["method"] for group in summary["groups"]} == {"mask_copy", "network"}
    assert summary["run"]["commands"] == ["benchmark floor", "benchmark network"]
    assert len(summary["run"]["data_hash"]) == 64
    assert paths[1].read_text().count(PICTURE) == 2  # masks are found from another folder
    with pytest.raises(DataError, match="mask_copy has case 1, structure structure_1 twice"):
        write_results([results / "floor", results / "floor"], tmp_path)


def test_the_same_bits_twice_and_no_trace(results: Path, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for name in "ab":
        write_results([results / "network"], tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert dict(matplotlib.rcParams) == before


def rows_of(case: str, method: str, shift: float = 0.0) -> list[Row]:
    return [
        row(case, "liver", value - shift, method=method, protocol=protocol)
        for protocol, value in (("ep1-alp", 90), ("oracle", 85), ("wv", 80))
    ]


def make_record(rows: list[Row], **files: object) -> CaseRecord:
    settings = {"image": "no.nii.gz", "label": "no.nii.gz", "masks": {}, "seconds": 1.0}
    return CaseRecord(rows, **(settings | files))


def write_case(folder: Path, name: str) -> dict[str, object]:
    """Image, label and mask of a scan (X, Y, Z) in LAS order, as fields of a record."""
    image = np.zeros((20, 30, 8), np.float32)
    image[2:18, 2:28] = np.arange(1, 9)
    label = np.zeros(image.shape, np.uint8)
    label[5:11, 6:14, 2:6] = 1
    found: dict[str, object] = {"masks": {"wv/sections": f"mask_{name}.nii.gz"}}
    for kind, array in (("image", image), ("label", label), ("mask", np.roll(label, 1, 0))):
        path = folder / f"{kind}_{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.5, 1.0, 8.0, 1.0])), path)
        found |= {kind: str(path)} if kind != "mask" else {}
    return found


def write(tmp_path: Path, records: Sequence[CaseRecord], **run: object) -> str:
    path = write_report(tmp_path / "report.html", records, run, TABLE)
    text = path.read_text(encoding="utf-8")
    assert not checked_page(text).addresses
    return " ".join(text.split())


def test_whole_report(tmp_path: Path) -> None:
    records = [
        make_record(rows_of(case, method, 10 * index), **write_case(tmp_path, case))
        for method in ("alpha", "beta", "mask_copy")
        for index, case in enumerate(("c1", "c2", "c3"))
    ]
    failures = ["alpha, fold3: no spleen."] * 2
    text = write(tmp_path, records, commands=["benchmark.py evaluate"], failures=failures)
    assert "2 methods and the mask copy outlined liver in 3 scans" in text
    for rank, case in (("Best", "c1"), ("Median", "c2"), ("Worst", "c3")):
        assert f"{rank} case: {case}" in text
    assert text.count(PICTURE) == 3
    assert '<td style="text-align: right;">70.0</td>' in text and "benchmark.py evaluate" in text
    assert "1 failure:" in text and "<li>alpha, fold3: no spleen.</li>" in text


@pytest.mark.parametrize("gone", ["image", "label", "mask", "kept"])
def test_a_missing_file_is_told(tmp_path: Path, gone: str) -> None:
    masks = {} if gone == "kept" else {"wv/sections": "gone.nii.gz"}
    changes = {gone: "gone.nii.gz"} if gone in ("image", "label") else {"masks": masks}
    files = write_case(tmp_path, "c1") | changes
    text = write(tmp_path, [make_record([row("c1", "liver", 81.25)], **files)])
    words = "kept no label map" if gone == "kept" else "gone.nii.gz: there is no such file"
    assert "No picture of this case" in text and words in text and "liver 81.2" in text


def test_names_are_text(tmp_path: Path) -> None:
    name = "<b>x</b> & $\\no$"  # between dollar signs matplotlib expects formulas
    rows = [
        row("<i>c</i>", "liver", 50, structure="<u>liver</u>", method=name, protocol=protocol)
        for protocol in ("wv", "oracle")
    ]
    record = make_record(rows, **write_case(tmp_path, "c1"))
    text = write(tmp_path, [record], note="<s>old</s>", failures=["<q>f</q>"])
    assert not [tag for tag in "biusq" if f"<{tag}>" in text] and PICTURE in text
    assert "&lt;b&gt;x&lt;/b&gt; &amp; $\\no$" in text
