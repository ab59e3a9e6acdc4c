from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_rows import row

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.records import CaseRecord, UnitFolder, read_records

ROW = row("7", "liver", 80.5)
RECORD = CaseRecord([ROW], "image_7.nii.gz", "label_7.nii.gz", {}, 1.5, "abc")


def unit(folder: Path, **identity: str) -> UnitFolder:
    return UnitFolder(folder, "a method", "fold0", identity or {"weights": "x"})


def test_a_finished_case_comes_back_whole(tmp_path: Path) -> None:
    nan = row("7", "liver", float("nan"))
    unit(tmp_path).add("7", replace(RECORD, rows=[ROW, nan]))
    found = unit(tmp_path).finished("7", "abc")
    assert found is not None and found.rows[0] == ROW
    assert found.rows[1].dice != found.rows[1].dice
    assert len(read_records(tmp_path)) == 1


def test_records_without_the_note_of_what_they_are_are_refused(tmp_path: Path) -> None:
    folder = unit(tmp_path)
    folder.add("7", RECORD)
    note = folder.folder / "unit.json"
    whole = note.read_text()
    note.unlink()
    with pytest.raises(DataError, match="no unit.json says what it comes from; choose another"):
        unit(tmp_path)
    for damaged in ("", whole[:10], "[" * 100_000):
        note.write_text(damaged)
        with pytest.raises(
            DataError, match="unit.json: cannot be read .*choose another --output_dir"
        ):
            unit(tmp_path)
    note.write_text(whole)
    assert unit(tmp_path).finished("7", "abc") == RECORD
