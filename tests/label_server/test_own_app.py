"""An annotator's session with our own app: names, models, refusals, proposals, training."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
from monailabel.client.client import MONAILabelClientException
from server_process import LabelServer
from slicer import Slicer, read_refusal

from environment import REPOSITORY
from phantom import draw_subject, write_subject

APP = REPOSITORY / "apps" / "few_shot"
PAGE = (APP / "README.md").read_text()
SHAPE = (96, 80, 12)
ORDERS = {1: "RAS", 2: "LPS", 3: "RAS", 4: "LIP", 5: "RAS"}
VESSELLED, RIMMED = 1, 2
# as Slicer would number them, where the annotator made the segments in another order
OTHER_VALUES = {1: "rimmed", 2: "vesselled"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with scan_1 to scan_5, whole labels truth_1 to truth_5."""
    folder = tmp_path_factory.mktemp("scans")
    for number, order in ORDERS.items():
        paths = (folder / f"{kind}_{number}.nii.gz" for kind in ("scan", "truth"))
        write_subject(draw_subject(1, number, SHAPE), *paths, order)
    return folder


@pytest.fixture(scope="module")
def server(
    start_server: Callable[..., LabelServer], scans: Path, tmp_path_factory: pytest.TempPathFactory
) -> LabelServer:
    """Return a server on the unlabelled scans and one file that is no scan."""
    studies = tmp_path_factory.mktemp("studies")
    for number in ORDERS:
        shutil.copy(scans / f"scan_{number}.nii.gz", studies)
    (studies / "broken.nii.gz").write_bytes(b"no scan")
    one = nibabel.Nifti1Image(np.ones((20, 20, 1), np.uint8), np.eye(4))
    nibabel.save(one, studies / "slice.nii.gz")
    return start_server(APP, studies, ["ssl_alpnet"])


@pytest.fixture(scope="module")
def slicer(server: LabelServer) -> Slicer:
    return Slicer(server, "ssl_alpnet")


@pytest.fixture(scope="module")
def labelled(slicer: Slicer, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Slicer:
    """Return the client after scan_1 was labelled: two structures, one empty segment beside."""
    label = _label(scans, 1, {VESSELLED: 1, RIMMED: 2}, tmp_path_factory.mktemp("label"))
    slicer.submit("scan_1", label, {1: "Vesselled", 2: "rimmed", 3: "spleen"})
    return slicer


def test_before_anything_is_labelled_the_default_pack_answers(slicer: Slicer, scans: Path):
    pack = _default_pack_names()
    info = slicer.client.info()
    assert info["labels"] == pack
    assert list(info["models"]) == ["ssl_alpnet"]
    assert info["models"]["ssl_alpnet"]["labels"] == {n: i for i, n in enumerate(pack, 1)}
    assert info["models"]["ssl_alpnet"]["dimension"] == 3
    assert next(iter(info["strategies"])) == "few_shot"
    answer = slicer.run("scan_2")
    assert answer.params["support"]["source"] == "default pack"
    assert answer.params["label_names"] == {n: i for i, n in enumerate(pack, 1)}


def test_proposal_names_what_cannot_be_read_and_encodes_a_scan_once(
    server: LabelServer, slicer: Slicer
):
    first = slicer.next_sample("few_shot")
    encoded = _changes(server.studies / ".few_shot" / "encoded")
    second = slicer.next_sample("few_shot")
    assert _changes(server.studies / ".few_shot" / "encoded") == encoded  # no scan is encoded again
    assert first["id"] != second["id"]  # asked again without a label: the scan is skipped
    assert {first["id"], second["id"]} < {f"scan_{number}" for number in ORDERS}
    assert first["path"] == str((server.studies / f"{first['id']}.nii.gz").resolve())
    assert "broken.nii.gz" in first["left_out"]["broken"]
    assert "has one slice only" in first["left_out"]["slice"]
    assert first["waiting"] == 0
    axis = "ijk".index(first["slices"]["axis"])
    depth = nibabel.load(first["path"]).shape[axis]
    assert depth == 12
    wanted = first["slices"]["of"]["all structures"]
    assert wanted == sorted(set(wanted)) and wanted[0] >= 0 and wanted[-1] < depth
    assert len(encoded) == len(ORDERS)


def test_submitted_structures_become_labels_and_models(labelled: Slicer):
    info = labelled.client.info()
    assert info["labels"] == ["Vesselled", "rimmed"]
    parts = {"ssl_alpnet_this_scan", "ssl_alpnet_vesselled", "ssl_alpnet_rimmed"}
    assert set(info["models"]) == {"ssl_alpnet", *parts}
    assert info["models"]["ssl_alpnet_rimmed"]["labels"] == {"rimmed": 1}
    assert info["models"]["ssl_alpnet_rimmed"]["type"] == "segmentation"


def test_others_follow_one_labelled_scan(labelled: Slicer, scans: Path):
    answer = labelled.run("scan_2")
    assert answer.params["label_names"] == {"Vesselled": 1, "rimmed": 2}
    assert answer.params["support"]["source"] == "datastore"
    assert answer.params["support"]["scans"] == ["scan_1"]
    assert answer.values == {1, 2}
    truth = nibabel.load(scans / "truth_2.nii.gz")
    assert np.allclose(answer.affine, truth.affine, atol=1e-3)
    assert min(answer.dice(np.asarray(truth.dataobj) * (truth.get_fdata() < 3)).values()) > 0.5


def test_model_of_one_structure_gives_one_structure(
    server: LabelServer, labelled: Slicer, scans: Path
):
    whole = labelled.run("scan_2")
    one = Slicer(server, "ssl_alpnet_rimmed")
    answer = one.run("scan_2")
    assert answer.params["label_names"] == {"rimmed": 1}
    assert answer.params["structures"] == {"rimmed": 1}
    assert answer.values == {1}
    truth = np.asarray(nibabel.load(scans / "truth_2.nii.gz").dataobj) == RIMMED
    assert answer.dice(truth.astype(int))[1] > 0.5
    assert answer.mask.shape == whole.mask.shape


def test_model_of_this_scan_keeps_what_was_outlined(
    server: LabelServer, labelled: Slicer, scans: Path
):
    this = Slicer(server, "ssl_alpnet_this_scan")
    answer = this.run("scan_1")
    assert answer.params["support"]["scans"] == ["scan_1"]
    assert answer.params["label_names"] == {"Vesselled": 1, "rimmed": 2}
    truth = np.asarray(nibabel.load(scans / "truth_1.nii.gz").dataobj)
    # without a gap between its slices, what was outlined is the whole structure
    assert np.array_equal(answer.mask, np.where(np.isin(truth, (VESSELLED, RIMMED)), truth, 0))
    status, sentence = this.refusal("scan_2")
    assert status == 422 and "scan_2.nii.gz: has no submitted label; outline" in sentence


def test_requests_that_cannot_be_answered_are_refused_in_words(
    server: LabelServer, labelled: Slicer
):
    one = Slicer(server, "ssl_alpnet_rimmed")
    status, sentence = one.refusal("scan_1")
    assert status == 422 and "'rimmed', which is not among liver" in sentence
    assert sentence.startswith("scan_1 is the only labelled volume, which cannot support itself, ")
    assert sentence.endswith("; label a volume and submit its label.")
    sentence = "num_shots: expected a whole number from 1 on, got 'all'."
    assert labelled.refusal("scan_2", num_shots="all") == (422, sentence)
    status, sentence = labelled.refusal("scan_2", structures=["heart"])
    assert status == 422 and "'heart', which is not among Vesselled, rimmed" in sentence


@pytest.mark.parametrize(
    ("trouble", "image", "names"),
    [
        ("empty", "scan_1", {1: "Vesselled"}),
        ("other grid", "scan_1", {1: "Vesselled"}),
        ("unnamed", "scan_1", {1: "spleen", 2: " "}),
        ("no file", "scan_1", {1: "Vesselled"}),
        ("one slice", "slice", {1: "Vesselled"}),
    ],
)
def test_refused_label_leaves_the_former(
    server: LabelServer,
    labelled: Slicer,
    scans: Path,
    tmp_path: Path,
    trouble: str,
    image: str,
    names: dict[int, str],
):
    stored = server.studies / "labels" / "final" / "scan_1.nii.gz"
    before, record = _digest(stored), server.get("/datastore/label/info?label=scan_1&tag=final")
    with pytest.raises(MONAILabelClientException) as caught:
        labelled.submit(image, _bad_label(trouble, scans, tmp_path), names)
    status, said = read_refusal(caught.value.msg)
    assert status == 422
    assert f"`{said.replace(f'{server.studies}/', '')}`" in PAGE
    assert _digest(stored) == before
    assert server.get("/datastore/label/info?label=scan_1&tag=final") == record


def test_corrected_masks_join_under_their_names_whatever_their_values(
    server: LabelServer, labelled: Slicer, scans: Path, tmp_path: Path
):
    _batch(server, "ssl_alpnet", max_workers=2)
    original = server.studies / "labels" / "original" / "scan_3.nii.gz"
    assert set(np.unique(np.asarray(nibabel.load(original).dataobj))) == {0, 1, 2}
    noted = server.get("/datastore/label/info?label=scan_3&tag=original")["params"]
    assert noted["label_names"] == {"Vesselled": 1, "rimmed": 2}
    assert noted["support"]["scans"] == ["scan_1"]
    corrected = _label(scans, 3, {VESSELLED: 2, RIMMED: 1}, tmp_path)
    labelled.submit("scan_3", corrected, OTHER_VALUES)
    answer = labelled.run("scan_2")
    assert answer.params["support"]["scans"] == ["scan_1", "scan_3"]
    assert answer.params["label_names"] == {"Vesselled": 1, "rimmed": 2}
    truth = np.asarray(nibabel.load(scans / "truth_2.nii.gz").dataobj)
    assert min(answer.dice(truth * (truth < 3)).values()) > 0.5


def test_proposal_after_a_label_says_where_the_structures_are(
    server: LabelServer, labelled: Slicer
):
    sample = labelled.next_sample("few_shot")
    stored = (server.studies / "labels" / "final").iterdir()
    assert f"{sample['id']}.nii.gz" not in {path.name for path in stored}
    assert sample["id"].startswith("scan_")
    assert set(sample["slices"]["of"]) == {"Vesselled", "rimmed"}
    assert all(len(slices) == 3 for slices in sample["slices"]["of"].values())


def test_training_takes_all_scans_and_the_next_request_its_weights(
    server: LabelServer, labelled: Slicer
):
    weights = server.models_dir / "ssl_alpnet" / "models" / "model.pt"
    before = _digest(weights)
    done = Slicer(server, "ssl_alpnet_weights").train(max_epochs=1, val_split=0)
    assert done["status"] == "DONE", "\n".join(done["details"])
    assert "Total Records for Training: 5" in server.log
    assert "Not trained on: " in server.log  # the broken file, by name
    assert _digest(weights) != before
    answer = labelled.run("scan_2")
    assert answer.params["support"]["scans"] == ["scan_1", "scan_3"]


def _label(scans: Path, number: int, values: dict[int, int], folder: Path) -> Path:
    """Write a label that holds some structures of the truth under other values."""
    truth = nibabel.load(scans / f"truth_{number}.nii.gz")
    data = np.asarray(truth.dataobj)
    label = np.zeros_like(data)
    for own, value in values.items():
        label[data == own] = value
    path = folder / f"label_{number}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label, truth.affine, truth.header), path)
    return path


def _bad_label(trouble: str, scans: Path, folder: Path) -> Path:
    path = folder / "label.nii.gz"
    if trouble == "no file":
        path.write_bytes(b"no label")
        return path
    if trouble == "other grid":
        return scans / "truth_4.nii.gz"
    truth = nibabel.load(scans / "truth_1.nii.gz")
    data = np.asarray(truth.dataobj)
    if trouble == "one slice":
        truth, data = nibabel.Nifti1Image(data, np.eye(4)), np.ones((20, 20, 1), np.uint8)
    data = np.zeros_like(data) if trouble == "empty" else np.minimum(data, 2)
    nibabel.save(nibabel.Nifti1Image(data, truth.affine, truth.header), path)
    return path


def _batch(server: LabelServer, model: str, max_workers: int) -> None:
    import requests

    params = {"device": "cpu", "max_workers": max_workers}
    address = f"{server.url}/batch/infer/{model}?images=unlabeled&run_sync=true"
    answer = requests.post(address, json=params, timeout=300)
    assert answer.status_code == 200, answer.text


def _default_pack_names() -> list[str]:
    metadata = json.loads(
        (REPOSITORY / "bundles" / "ssl_alpnet" / "configs" / "metadata.json").read_text()
    )
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    return [name.lower() for value, name in sorted(channels.items()) if value != "0"]


def _changes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
