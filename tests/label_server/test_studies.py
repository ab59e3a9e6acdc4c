from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from block_scans import block_label, write_nifti
from label_studies import NAMES, submit, write_volume

from fsmis_components.data.errors import DataError
from fsmis_components.label_server import studies
from fsmis_components.label_server.studies import (
    is_studies_folder,
    labelled_volumes,
)


def test_volumes_in_the_order_of_labelling(tmp_path: Path) -> None:
    assert not is_studies_folder(tmp_path) and labelled_volumes(tmp_path) == []
    for seed, id in enumerate(("a", "b", "c")):
        write_volume(tmp_path, id, seed)
    submit(tmp_path, "a", ts=300)
    submit(tmp_path, "b", ts=100, names={1: "Kidney", 2: "Spleen"})
    found = labelled_volumes(tmp_path)
    assert is_studies_folder(tmp_path)
    assert [volume.id for volume in found] == ["b", "a"]
    assert found[0].names == {1: "Kidney", 2: "Spleen"} and found[1].names == NAMES
    assert found[1].image == str((tmp_path / "a.nii.gz").resolve())


def test_files_put_there_by_hand(tmp_path: Path) -> None:
    for seed, id in enumerate(("a", "b")):
        write_volume(tmp_path, id, seed)
    late = submit(tmp_path, "a", names=None)
    early = submit(tmp_path, "b", names=None)
    os.utime(late, (2000, 2000))
    os.utime(early, (1000, 1000))
    write_nifti(late.with_name(".half.nii.gz"), block_label())  # still being written
    write_nifti(late.with_name("gone.nii.gz"), block_label())  # its volume was removed
    assert [volume.id for volume in labelled_volumes(tmp_path)] == ["b", "a"]
    assert labelled_volumes(tmp_path)[0].names == {}
    assert labelled_volumes(tmp_path, tag="original") == []
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "gut"}}))
    assert labelled_volumes(tmp_path)[0].names == {1: "gut"}


def test_a_record_that_stays_unreadable_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path, "a", 0)
    submit(tmp_path, "a")
    record = tmp_path / "datastore_v2.json"
    text = record.read_text()
    record.write_text(text[:20])

    # the server completes its file while we wait
    monkeypatch.setattr(studies.time, "sleep", lambda _: record.write_text(text))
    assert labelled_volumes(tmp_path)[0].names == NAMES

    record.write_text(text[:20])
    monkeypatch.setattr(studies.time, "sleep", lambda _: None)
    with pytest.raises(DataError, match="not readable; send the request again"):
        labelled_volumes(tmp_path)
