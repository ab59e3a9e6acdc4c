"""Training that a viewer starts: new weights answer, and what no longer fits is put aside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

from made_up_studies import NAMES, Study, write_studies
from server_process import STOCK, LabelServer
from slicer import Answer, Slicer

MODEL = "ssl_alpnet"


@dataclass(frozen=True)
class Training:
    """A server before and after an epoch that the viewer asked for."""

    server: LabelServer
    slicer: Slicer
    studies: list[Study]
    former: dict[str, str]  # hash of each file in models/
    before: Answer
    task: dict[str, Any]

    @property
    def models(self) -> Path:
        return self.server.models_dir / MODEL / "models"


@pytest.fixture(scope="module")
def training(
    start_server: Callable[..., LabelServer], tmp_path_factory: pytest.TempPathFactory
) -> Training:
    folder = tmp_path_factory.mktemp("training")
    studies = write_studies(folder, ("RAS", "LPS", "PIR"))
    server = start_server(STOCK, folder / "studies", [MODEL])
    slicer = Slicer(server, MODEL)
    for study in studies[:2]:
        slicer.submit(study.id, study.label, NAMES)
    former = _hashes(server.models_dir / MODEL / "models")
    before = slicer.run(studies[2].id)
    task = slicer.train(max_epochs=1)
    return Training(server, slicer, studies, former, before, task)


def test_one_epoch_ends_well(training: Training):
    assert training.task["status"] == "DONE", "\n".join(training.task["details"])


def test_weights_are_new_and_the_former_files_are_kept(training: Training):
    now = _hashes(training.models)
    assert set(now) == {"model.pt"}
    assert now["model.pt"] != training.former["model.pt"]
    (kept,) = (training.models / "previous").iterdir()
    assert _hashes(kept) == training.former


def test_without_labels_the_misfit_pack_is_refused_in_words(training: Training):
    training.server.remove_labels()
    status, sentence = training.slicer.refusal(training.studies[2].id)
    assert status == 422
    assert "support" in sentence
    assert len(sentence.splitlines()) == 1


def test_training_without_labels_leaves_the_weights(training: Training):
    training.server.remove_labels()
    before = _hashes(training.models)
    task = training.slicer.train(max_epochs=1)
    assert task["status"] == "ERROR"
    assert "label" in task["details"][-1]
    assert _hashes(training.models) == before


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["max_epochs", "device"])
def test_a_request_runs_no_code_in_the_sample_app_either(
    training: Training, tmp_path: Path, name: str
):
    before = _hashes(training.models)
    code = f"$__import__('os').system('id > {tmp_path}/proof')"
    task = training.slicer.train(**{"max_epochs": 1, name: code})
    assert task["status"] == "ERROR"
    assert f"CodeInRequest: {name}: expected" in training.server.log
    assert not (tmp_path / "proof").exists()
    assert _hashes(training.models) == before
