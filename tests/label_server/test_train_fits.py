"""Train of our own app: a small network is fitted to the scans, and serves as a model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
from monailabel.client.client import MONAILabelClientException
from monailabel.tasks.infer.bundle import BundleInferTask
from server_process import LabelServer
from slicer import Slicer, read_refusal

from environment import REPOSITORY
from phantom import draw_subject, write_subject

APP = REPOSITORY / "apps" / "few_shot"
SHAPE = (64, 56, 8)
SCANS, UPLOADED = range(1, 6), 6
NAMES = {2: "Rimmed", 1: "vesselled"}
SECONDS = 1800  # at the most; a busy machine is slow


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with scan_1 to scan_6 and labels of two structures, label_1 to label_6."""
    folder = tmp_path_factory.mktemp("scans")
    for number in (*SCANS, UPLOADED):
        label = folder / f"label_{number}.nii.gz"
        write_subject(draw_subject(1, number, SHAPE), folder / f"scan_{number}.nii.gz", label)
        whole = nibabel.load(label)
        data = np.asarray(whole.dataobj)
        kept = np.where(data <= 2, data, 0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(kept, whole.affine, whole.header), label)
    return folder


@pytest.fixture(scope="module")
def server(
    start_server: Callable[..., LabelServer],
    truth: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> LabelServer:
    studies = tmp_path_factory.mktemp("studies")
    for number in SCANS:
        shutil.copy(truth / f"scan_{number}.nii.gz", studies)
    (studies / "broken.nii.gz").write_bytes(b"no scan")
    return start_server(APP, studies, ["ssl_alpnet"])


@pytest.fixture(scope="module")
def slicer(server: LabelServer) -> Slicer:
    return Slicer(server, "ssl_alpnet")


def files(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def waited(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def test_without_a_label_there_is_nothing_to_fit_to(slicer: Slicer) -> None:
    assert slicer.options("trainers", "ssl_alpnet") == {"minutes": 0}
    done = slicer.train()
    assert done["status"] == "ERROR"
    assert "no scan has a label that can serve; label one." in done["details"][-1]
    assert set(slicer.client.info()["models"]) == {"ssl_alpnet"}


@pytest.fixture(scope="module")
def stopped(slicer: Slicer, server: LabelServer, truth: Path) -> dict[Path, int]:
    """Return the teacher's masks of a fit that was stopped when they were there."""
    slicer.submit("scan_1", truth / "label_1.nii.gz", NAMES)
    teacher = "*/fitted/teacher"
    fits = server.studies / ".few_shot" / "fit" / "ssl_alpnet"
    slicer.client.train_start("ssl_alpnet", {"minutes": 0})
    assert waited(lambda: files(fits, f"{teacher}/report.html")), server.log_tail()
    with pytest.raises(MONAILabelClientException) as caught:
        slicer.client.train_start("ssl_alpnet", {"minutes": 0})
    assert read_refusal(caught.value.msg)[0] == 429
    slicer.client.train_stop()
    assert slicer.client.train_status()["status"] == "STOPPED"
    assert "ssl_alpnet_fitted" not in slicer.client.info()["models"]
    return files(fits, f"{teacher}/*_seg.nii.gz")


@pytest.fixture(scope="module")
def fitted(slicer: Slicer, server: LabelServer, stopped: dict[Path, int]) -> Path:
    """Return the folder of masks of the fit that went on."""
    done = slicer.train(SECONDS)
    assert done["status"] == "DONE", "\n".join(done["details"])
    [folder] = (server.studies / ".few_shot" / "fit" / "ssl_alpnet").glob("*/fitted")
    assert {path: path.stat().st_mtime_ns for path in stopped} == stopped
    return folder


def test_a_stopped_fit_goes_on_and_takes_all_scans_but_the_labelled(
    server: LabelServer, stopped: dict[Path, int], fitted: Path
) -> None:
    names = {f"scan_{number}_seg.nii.gz" for number in SCANS if number != 1}
    assert {path.name for path in stopped} == names
    assert {path.name for path in fitted.glob("*_seg.nii.gz")} == names
    assert "Not trained on: " in server.log  # the broken file, by name


def test_scans_of_the_fit_get_its_masks(slicer: Slicer, server: LabelServer, fitted: Path) -> None:
    assert slicer.client.info()["models"]["ssl_alpnet_fitted"]["labels"] == {
        "vesselled": 1,
        "Rimmed": 2,
    }
    model = Slicer(server, "ssl_alpnet_fitted")
    answer = model.run("scan_2")
    expected = nibabel.load(fitted / "scan_2_seg.nii.gz")
    np.testing.assert_array_equal(answer.mask, np.asarray(expected.dataobj))
    np.testing.assert_allclose(answer.affine, expected.affine, atol=1e-3)
    assert answer.params["label_names"] == {"vesselled": 1, "Rimmed": 2}
    assert set(answer.params["expected_dice"]) == {"vesselled", "Rimmed"}
    # the datastore holds what it held: masks of a fit are no scans
    assert slicer.client.info()["datastore"]["total"] == len(SCANS) + 1


def test_the_student_segments_new_scans(
    slicer: Slicer, server: LabelServer, truth: Path, fitted: Path, tmp_path: Path
) -> None:
    model = Slicer(server, "ssl_alpnet_fitted")
    scan = nibabel.load(truth / f"scan_{UPLOADED}.nii.gz")
    answer = model.run(file=truth / f"scan_{UPLOADED}.nii.gz", result_extension=".nii.gz")
    assert answer.mask.shape == scan.shape and answer.values <= {1, 2} and answer.values
    np.testing.assert_allclose(answer.affine, scan.affine, atol=1e-3)
    assert answer.params["warnings"] == [
        "The scan was not in the fit, so nothing has judged its mask."
    ]
    (tmp_path / "no_scan.nii.gz").write_bytes(b"no scan")
    status, sentence = model.refusal(file=tmp_path / "no_scan.nii.gz")
    assert status == 422 and "not a NIfTI file" in sentence


def test_the_student_runs_in_the_stock_app(server: LabelServer, truth: Path, fitted: Path) -> None:
    scan = truth / f"scan_{UPLOADED}.nii.gz"
    stock = BundleInferTask(str(fitted / "bundle"), {})
    path, _ = stock({"image": str(scan), "image_path": str(scan), "device": "cpu"})
    made = nibabel.load(path)
    answer = Slicer(server, "ssl_alpnet_fitted").run(file=scan, result_extension=".nii.gz")
    assert answer.values
    np.testing.assert_array_equal(np.asarray(made.dataobj), answer.mask)
    np.testing.assert_allclose(made.affine, nibabel.load(scan).affine, atol=1e-3)


def test_other_labels_are_another_fit_and_the_former_answers_meanwhile(
    slicer: Slicer, server: LabelServer, truth: Path, fitted: Path
) -> None:
    slicer.submit("scan_2", truth / "label_2.nii.gz", NAMES)
    done = slicer.train(SECONDS)
    assert done["status"] == "ERROR"
    assert "3 scans could be segmented, and fitting needs 4 beside" in done["details"][-1]
    answer = Slicer(server, "ssl_alpnet_fitted").run("scan_3")
    expected = nibabel.load(fitted / "scan_3_seg.nii.gz")
    np.testing.assert_array_equal(answer.mask, np.asarray(expected.dataobj))
