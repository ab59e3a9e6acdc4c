"""Labels and scans that cannot be used: one sentence each, and nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import NAMES, Study, write_studies
from server_process import STOCK, LabelServer
from slicer import Slicer

MODEL = "ssl_alpnet"
UNPROCESSABLE = 422


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    """Three scans and, as scan_4, one slice of the first."""
    folder = tmp_path_factory.mktemp("bad_labels")
    studies = write_studies(folder, ("RAS", "LPS", "LAS"))
    first = studies[0]
    slice_ = Study("scan_4", *(p.with_name("scan_4.nii.gz") for p in (first.image, first.label)))
    for source, target in ((first.image, slice_.image), (first.label, slice_.label)):
        nibabel.save(nibabel.load(source).slicer[:, :, 5:6], target)
    return [*studies, slice_]


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LabelServer], studies: list[Study]) -> LabelServer:
    server = start_server(STOCK, studies[0].image.parent, [MODEL])
    # one without a default pack has nothing but labels to answer with
    (server.models_dir / MODEL / "models" / "support_pack.safetensors").unlink()
    return server


@pytest.fixture
def slicer(server: LabelServer) -> Slicer:
    """Return a viewer of a server in which nothing is labelled."""
    server.remove_labels()
    return Slicer(server, MODEL)


def _changed(study: Study, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Return a file with the changed label of a study, on the study's affine."""
    path = folder / "changed.nii.gz"
    label = nibabel.Nifti1Image(change(study.truth), study.affine)
    nibabel.save(label, path)
    return path


def test_no_labels_and_no_default_pack(slicer: Slicer, studies: list[Study]):
    status, sentence = slicer.refusal(studies[1].id)
    assert status == UNPROCESSABLE
    assert sentence.startswith("no volume is labelled, and the bundle's own support cannot serve")
    assert sentence.endswith("; label a volume and submit its label.")


@pytest.mark.parametrize(
    ("number", "change", "names", "said"),
    [
        (0, lambda label: label[:-2], NAMES, "scan_1.nii.gz: .*their shapes differ"),
        (0, np.zeros_like, NAMES, "scan_1.nii.gz: the label is empty"),
        (0, None, {**NAMES, 5: ""}, "label value 5 has no name"),
        (0, None, {v: n for v, n in NAMES.items() if v != 5}, "label value 5 has no name"),
        (3, None, NAMES, "scan_4.nii.gz: has one slice only"),
    ],
    ids=["another grid", "empty", "empty name", "no name", "one slice"],
)
def test_label_that_cannot_serve(
    slicer: Slicer,
    studies: list[Study],
    tmp_path: Path,
    number: int,
    change: Callable[[np.ndarray], np.ndarray] | None,
    names: dict[int, str],
    said: str,
):
    study = studies[number]
    label = study.label if change is None else _changed(study, tmp_path, change)
    slicer.submit(study.id, label, names)
    status, sentence = slicer.refusal(studies[1].id)
    assert status == UNPROCESSABLE and re.search(said, sentence), sentence
    objects = slicer.client.datastore()["objects"]
    assert sorted(objects) == ["scan_1", "scan_2", "scan_3", "scan_4"]
    stored = Path(slicer.client.download_label(study.id, "final"))
    assert stored.read_bytes() == label.read_bytes()  # nothing is lost


def test_others_serve_and_the_reason_is_told(slicer: Slicer, studies: list[Study], tmp_path: Path):
    slicer.submit(studies[0].id, studies[0].label, NAMES)
    empty = _changed(studies[2], tmp_path, np.zeros_like)
    slicer.submit(studies[2].id, empty, NAMES)
    answer = slicer.run(studies[1].id)
    assert answer.params["support"]["scans"] == [studies[0].id]
    assert any("empty" in w and studies[2].id in w for w in answer.params["warnings"])
