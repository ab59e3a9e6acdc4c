"""An annotator's session with our own app: names, models, refusals, proposals, as on its page."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
from monailabel.client.client import MONAILabelClientException
from own_app_session import APP, MODEL, OwnApp
from slicer import read_refusal

from environment import REPOSITORY

PAGE = (APP / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the page's code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_documented_server_listens_to_its_own_machine_only():
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[abft]*/**/*.md")):
        for line in page.read_text().splitlines():
            if "start_server" in line:
                assert "--host 127.0.0.1" in line, f"{page}: {line}"


def test_before_anything_is_labelled_the_default_pack_answers(unlabelled: dict[str, Any]):
    metadata = json.loads(
        (REPOSITORY / "bundles" / MODEL / "configs" / "metadata.json").read_text()
    )
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    pack = [name.lower() for value, name in sorted(channels.items()) if value != "0"]
    info, answer = unlabelled["info"], unlabelled["answer"]
    assert info["labels"] == pack
    assert list(info["models"]) == list(info["trainers"]) == [MODEL]
    assert info["models"][MODEL]["labels"] == {n: i for i, n in enumerate(pack, 1)}
    assert info["models"][MODEL]["dimension"] == 3
    assert next(iter(info["strategies"])) == "few_shot"
    assert answer.params["support"]["source"] == "default pack"
    assert answer.params["label_names"] == {n: i for i, n in enumerate(pack, 1)}


def test_proposal_names_what_cannot_be_read_and_encodes_a_scan_once(
    own_app: OwnApp, unlabelled: dict[str, Any]
):
    first, second, encoded = (unlabelled[name] for name in ("proposed", "then", "encoded"))
    scans = {study.id for study in own_app.studies[:-1]}
    assert len(encoded) == len(scans)
    assert {path: path.stat().st_mtime_ns for path in encoded} == encoded  # none encoded again
    assert first["id"] != second["id"]  # asked again without a label: the scan is skipped
    assert {first["id"], second["id"]} < scans
    assert first["path"] == str((own_app.server.studies / f"{first['id']}.nii.gz").resolve())
    assert "broken.nii.gz" in first["left_out"]["broken"]
    assert "has one slice only" in first["left_out"]["slice"]
    assert first["waiting"] == 0
    depth = nibabel.load(first["path"]).shape["ijk".index(first["slices"]["axis"])]
    wanted = first["slices"]["of"]["all structures"]
    assert depth < 11  # no other axis is as short
    assert wanted == sorted(set(wanted)) and wanted[0] >= 0 and wanted[-1] < depth


def test_submitted_structures_become_labels_and_models(labelled: OwnApp):
    info = labelled.slicer.client.info()
    assert info["labels"] == ["spleen", "Liver"]
    parts = {f"{MODEL}_{part}" for part in ("this_scan", "spleen", "liver")}
    assert parts < set(info["models"])
    assert info["models"][f"{MODEL}_liver"]["labels"] == {"Liver": 1}
    assert info["models"][f"{MODEL}_liver"]["type"] == "segmentation"


def test_session_of_the_page(
    labelled: OwnApp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """What is labelled is labelled again, under the page's names."""
    monkeypatch.chdir(tmp_path)
    server, first, other = labelled.server, *labelled.studies[:2]
    first.relabelled({1: 1, 2: 2}, tmp_path / "label_1.nii.gz")
    named: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block.replace(ADDRESS, server.url), named)
    assert named["sample"]["id"] in {study.id for study in labelled.studies}
    params = named["params"]
    assert params["label_names"] == {"spleen": 1, "liver": 2}
    assert params["support"]["source"] == "datastore"
    assert params["support"]["scans"] == ["scan_1"]
    mask = nibabel.load(named["mask"])
    assert np.allclose(mask.affine, other.affine, atol=1e-3)
    found = np.asarray(mask.dataobj)
    assert set(np.unique(found)) == {0, 1, 2}
    assert (found == other.truth)[other.truth > 0].mean() > 0.5
    said = capsys.readouterr().out
    assert "'expected_dice'" not in said and "{'spleen': 1, 'liver': 2}" in said
    offered = {*server.get("/info/")["models"], f"{MODEL}_fitted"}  # the last after Train
    assert set(re.findall(rf"`({MODEL}\w*)`", PAGE)) <= offered
    for entry in ("label_names", "structures", "expected_dice", "support", "warnings"):
        assert entry in params and f"`{entry}`" in PAGE

    (batch,) = (block for block in blocks("bash") if block.startswith("curl"))
    command = ["bash", "-c", batch.replace(ADDRESS, server.url)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    names = {study.id for study in labelled.studies[1:-1]}
    assert names <= set(json.loads(done.stdout))
    record = json.loads((server.studies / "datastore_v2.json").read_text())["objects"]
    for name in names:
        noted = record[name]["labels"]["original"]["info"]["params"]
        assert noted["label_names"] == {"spleen": 1, "liver": 2}
        assert noted["support"]["scans"] == ["scan_1"]
        assert set(noted["expected_dice"]) == {"spleen", "liver"}
        assert (server.studies / "labels" / "original" / f"{name}.nii.gz").is_file()


def test_model_of_one_structure_gives_one_structure(labelled: OwnApp):
    answer, study = labelled.model("liver").run("scan_2"), labelled.studies[1]
    assert list(answer.params["label_names"].values()) == [1]
    assert answer.params["structures"] == answer.params["label_names"]
    assert answer.values == {1}
    assert answer.dice((study.truth == 2).astype(int))[1] > 0.5
    np.testing.assert_allclose(answer.affine, study.affine, atol=1e-3)


def test_model_of_this_scan_keeps_what_was_outlined(labelled: OwnApp):
    this = labelled.model("this_scan")
    answer = this.run("scan_1")
    assert answer.params["support"]["scans"] == ["scan_1"]
    assert list(answer.params["label_names"].values()) == [1, 2]
    # without a gap between its slices, what was outlined is the whole structure
    assert np.array_equal(answer.mask, labelled.studies[0].truth)
    status, sentence = this.refusal("scan_2")
    assert status == 422 and "scan_2.nii.gz: has no submitted label; outline" in sentence


def test_requests_that_cannot_be_answered_are_refused_in_words(labelled: OwnApp):
    sentence = "num_shots: expected a whole number from 1 on, got 'all'."
    assert labelled.slicer.refusal("scan_2", num_shots="all") == (422, sentence)
    status, sentence = labelled.slicer.refusal("scan_2", structures=["heart"])
    assert status == 422 and "'heart', which is not among spleen, " in sentence


@pytest.mark.parametrize(
    ("trouble", "image", "names"),
    [
        ("empty", "scan_1", {1: "spleen"}),
        ("other grid", "scan_1", {1: "spleen"}),
        ("unnamed", "scan_1", {1: "spleen", 2: " "}),
        ("no file", "scan_1", {1: "spleen"}),
        ("one slice", "slice", {1: "spleen"}),
    ],
)
def test_refused_label_leaves_the_former(
    labelled: OwnApp, tmp_path: Path, trouble: str, image: str, names: dict[int, str]
):
    server, note = labelled.server, "/datastore/label/info?label=scan_1&tag=final"
    stored = server.studies / "labels" / "final" / "scan_1.nii.gz"
    before = hashlib.sha256(stored.read_bytes()).digest(), server.get(note)
    with pytest.raises(MONAILabelClientException) as caught:
        labelled.slicer.submit(image, bad_label(trouble, labelled, tmp_path), names)
    status, said = read_refusal(caught.value.msg)
    assert status == 422
    assert f"`{said.replace(f'{server.studies}/', '')}`" in PAGE
    assert (hashlib.sha256(stored.read_bytes()).digest(), server.get(note)) == before


def bad_label(trouble: str, app: OwnApp, folder: Path) -> Path:
    study, path = app.studies[0], folder / "label.nii.gz"
    if trouble == "other grid":
        # as large as the scan, elsewhere
        image = nibabel.load(study.label)
        affine = image.affine.copy()
        affine[:3, 3] += 50.0
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
    elif trouble == "no file":
        path.write_bytes(b"no label")
    elif trouble == "one slice":
        nibabel.save(nibabel.Nifti1Image(np.ones((20, 20, 1), np.uint8), np.eye(4)), path)
    else:
        study.relabelled({} if trouble == "empty" else {1: 1, 2: 2}, path)
    return path


def test_uploads_are_private_and_removed_when_answered(labelled: OwnApp):
    folders = list((labelled.server.app_dir.parent / "temporary").glob("few_shot_*"))
    assert folders and all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in folders)
    answer = labelled.slicer.run(file=labelled.studies[1].image)
    assert answer.params["support"]["scans"] == ["scan_1"]
    said = set()  # a model that is there once something is labelled tells no files either
    for image in (labelled.studies[0].label, "/tmp/missing.nii.gz", "/etc/passwd"):
        said.add(labelled.model("this_scan").refusal(str(image)))
    assert len(said) == 1
    end = time.monotonic() + 20  # the server removes what was answered a moment later
    while left := [path for each in folders for path in each.rglob("*") if path.is_file()]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_corrected_masks_join_under_their_names_whatever_their_values(corrected: OwnApp):
    answer = corrected.slicer.run("scan_2")
    assert answer.params["support"]["scans"] == ["scan_1", "scan_3"]
    assert list(answer.params["label_names"].values()) == [1, 2]
    assert min(answer.dice(corrected.studies[1].truth).values()) > 0.5
    sample = corrected.slicer.next_sample("few_shot")
    assert sample["id"] in {study.id for study in corrected.studies} - {"scan_1", "scan_3"}
    assert sample["slices"]["of"].keys() == answer.params["label_names"].keys()
    assert all(0 < len(slices) <= 3 for slices in sample["slices"]["of"].values())
