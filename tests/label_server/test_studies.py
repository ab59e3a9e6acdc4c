from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from block_scans import block_label, write_nifti
from label_studies import NAMES, submit, write_volume

from fsmis_components.data.errors import DataError
from fsmis_components.label_server import studies
from fsmis_components.label_server.studies import (
    datastore_volumes,
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


def test_volumes_of_a_datastore_of_any_kind(tmp_path: Path) -> None:
    """The ids of its labels are not those of its images."""
    files = {id: (write_volume(tmp_path, id, 0), submit(tmp_path, id, names=None)) for id in "abc"}
    files["gone"] = (files["a"][0], tmp_path / "none.nii.gz")
    info: dict[str, dict[str, Any]] = {
        "a": {"ts": 30, "label_info": [{"name": "rimmed", "idx": 2}]},
        "b": {"ts": 10, "params": {"structures": {"rimmed": 1}}},  # our mask, taken as it was
        "c": {"ts": 20},
        "gone": {"ts": 40},
    }
    store = SimpleNamespace(
        get_labeled_images=lambda: list(files),
        get_label_by_image_id=lambda image_id, tag: f"{tag} of {image_id}",
        get_image_uri=lambda image_id: str(files[image_id][0]),
        get_label_uri=lambda label_id, tag: str(files[label_id.removeprefix("final of ")][1]),
        get_label_info=lambda label_id, tag: info[label_id.removeprefix("final of ")],
    )
    found = [(volume.id, volume.names) for volume in datastore_volumes(store)]
    assert found == [("b", {1: "rimmed"}), ("c", {}), ("a", {2: "rimmed"})]
