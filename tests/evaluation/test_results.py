from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.results import note_run, write_results
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.network import NetworkSubject

FILES = ["table.md", "report.html", "cases.csv", "summary.json"]


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
    page = paths[1].read_text()
    assert page.lstrip().lower().startswith("<!doctype html") and "data:image/png" in page


def test_the_same_bits_twice(results: Path, tmp_path: Path) -> None:
    for name in "ab":
        write_results([results / "network"], tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_no_case_counts_twice(results: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mask_copy has case 1, structure structure_1 twice"):
        write_results([results / "floor", results / "floor"], tmp_path)


def test_commands_are_kept_once(tmp_path: Path) -> None:
    note_run(tmp_path, "one", ["it broke"])
    note_run(tmp_path, "two", [])
    note_run(tmp_path, "one", ["again"], extra=1)
    noted = json.loads((tmp_path / "run.json").read_text())
    assert noted == {"commands": ["one", "two"], "failures": ["again"], "extra": 1}
