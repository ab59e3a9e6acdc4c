"""Train of our own app: a small network is fitted to the scans, and serves as a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
import requests
from monailabel.client.client import MONAILabelClientException
from monailabel.tasks.infer.bundle import BundleInferTask
from own_app_session import MODEL, NAMES, OwnApp
from slicer import read_refusal

SECONDS = 1800  # at the most; a busy machine is slow
FITTED = {"scan_2", "scan_4", "scan_5", "scan_6"}  # 1 and 3 are labelled


def files(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def waited(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def test_without_a_label_there_is_nothing_to_fit_to(unlabelled: dict[str, Any]) -> None:
    answer = unlabelled["training"]
    assert answer.status_code == 422
    assert answer.json()["detail"] == "training: no scan has a label that can serve; label one."


@pytest.fixture(scope="module")
def stopped(corrected: OwnApp) -> dict[Path, int]:
    """Return the teacher's masks of a fit that was stopped when they were there."""
    slicer, teacher = corrected.slicer, "*/fitted/teacher"
    assert slicer.options("trainers", MODEL) == {"minutes": 0}
    slicer.client.train_start(MODEL, {"minutes": 0})
    done = waited(lambda: files(corrected.fits, f"{teacher}/report.html"))
    assert done, corrected.server.log_tail()
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.client.train_start(MODEL, {"minutes": 0})
    assert read_refusal(caught.value.msg)[0] == 429
    slicer.client.train_stop()
    assert slicer.client.train_status()["status"] == "STOPPED"
    assert f"{MODEL}_fitted" not in slicer.client.info()["models"]
    return files(corrected.fits, f"{teacher}/*_seg.nii.gz")


@pytest.fixture(scope="module")
def fitted(corrected: OwnApp, stopped: dict[Path, int]) -> Path:
    """Return the folder of masks of the fit that went on."""
    done = corrected.slicer.train(SECONDS)
    assert done["status"] == "DONE", "\n".join(done["details"])
    [folder] = corrected.fits.glob("*/fitted")
    assert {path: path.stat().st_mtime_ns for path in stopped} == stopped
    return folder


def test_a_stopped_fit_goes_on_and_takes_all_scans_but_the_labelled(
    own_app: OwnApp, stopped: dict[Path, int], fitted: Path
) -> None:
    names = {f"{scan}_seg.nii.gz" for scan in FITTED}
    assert {path.name for path in stopped} == names
    assert {path.name for path in fitted.glob("*_seg.nii.gz")} == names
    assert "Not trained on: " in own_app.server.log  # the broken file, by name


def test_scans_of_the_fit_get_its_masks(own_app: OwnApp, fitted: Path) -> None:
    info = own_app.slicer.client.info()
    names = info["models"][MODEL]["labels"]
    assert info["models"][f"{MODEL}_fitted"]["labels"] == names
    answer = own_app.model("fitted").run("scan_2")
    expected = nibabel.load(fitted / "scan_2_seg.nii.gz")
    np.testing.assert_array_equal(answer.mask, np.asarray(expected.dataobj))
    np.testing.assert_allclose(answer.affine, expected.affine, atol=1e-3)
    assert answer.params["label_names"] == names
    assert set(answer.params["expected_dice"]) == set(names)
    # the datastore holds what it held: masks of a fit are no scans
    assert info["datastore"]["total"] == len(own_app.studies) - 1 + 2


def test_the_student_segments_new_scans_as_in_the_stock_app(
    own_app: OwnApp, fitted: Path, tmp_path: Path
) -> None:
    model, scan = own_app.model("fitted"), own_app.studies[-1]
    answer = model.run(file=scan.image, result_extension=".nii.gz")
    assert answer.mask.shape == scan.truth.shape and answer.values and answer.values <= {1, 2}
    np.testing.assert_allclose(answer.affine, scan.affine, atol=1e-3)
    assert answer.params["warnings"] == [
        "The scan was not in the fit, so nothing has judged its mask."
    ]
    request = {"image": str(scan.image), "image_path": str(scan.image), "device": "cpu"}
    path, _ = BundleInferTask(str(fitted / "bundle"), {})(request)
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), answer.mask)
    (tmp_path / "no_scan.nii.gz").write_bytes(b"no scan")
    status, sentence = model.refusal(file=tmp_path / "no_scan.nii.gz")
    assert status == 422 and "not a NIfTI file" in sentence


def test_where_all_is_labelled_the_former_fit_still_answers(own_app: OwnApp, fitted: Path) -> None:
    for study in own_app.studies[:-1]:
        own_app.slicer.submit(study.id, study.label, NAMES)
    train = f"{own_app.server.url}/train/{MODEL}?run_sync=true"
    refused = requests.post(train, json={"minutes": 0}, timeout=SECONDS)
    assert refused.status_code == 422
    assert "the datastore holds no other scan that can be read" in refused.json()["detail"]
    answer = own_app.model("fitted").run("scan_4")
    expected = nibabel.load(fitted / "scan_4_seg.nii.gz")
    np.testing.assert_array_equal(answer.mask, np.asarray(expected.dataobj))
