from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.evaluation.subjects.bundle import BundleSubject, fold_folder
from fsmis_components.networks import ALPNet
from fsmis_components.support import weights_hash

BUNDLE = Path(__file__).parents[3] / "bundles" / "ssl_alpnet"


def write_trained(folder: Path, groups: list[list[int] | None], setting: str) -> list[ALPNet]:
    """Write the weights of fold 1 of each group, as the training of folds leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "bundle": "ssl_alpnet", "setting": setting, "groups": groups}
    (folder / "training.json").write_text(json.dumps(content))
    networks = []
    for group in groups:
        own = folder / fold_folder(1, None if group is None else tuple(group))
        own.mkdir()
        networks.append(ALPNet())
        torch.save(networks[-1].state_dict(), own / "model.pt")
        facts = {"sha256": file_hash(own / "model.pt"), "seconds": 1.0}
        (own / "finished.json").write_text(json.dumps(facts))
    return networks


def test_shipped_weights_and_knobs() -> None:
    subject = BundleSubject(BUNDLE, knobs={"spatial_size": 64, "batch_size": 3})
    shipped = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert subject.name == "ssl_alpnet (shipped)" and subject.setting == "given"
    assert all(value.equal(shipped[key]) for key, value in subject.network.state_dict().items())
    assert (subject.geometry["spatial_size"], subject.batch_size) == (64, 3)
    assert subject.identity(0, None)["weights"] == weights_hash(subject.network)


def test_trained_folds_and_groups(tmp_path: Path) -> None:
    networks = write_trained(tmp_path / "t", [[2, 3], [1, 4]], "2-any")
    subject = BundleSubject(BUNDLE, tmp_path / "t")
    assert (subject.name, subject.setting) == ("ssl_alpnet", "2-any")
    assert list(subject.groups()) == [(2, 3), (1, 4)]
    for group, network in zip(subject.groups(), networks, strict=True):
        subject.load(1, group)
        assert weights_hash(subject.network) == weights_hash(network)
    (tmp_path / "t" / "fold1_1-4" / "model.pt").write_bytes(b"others")
    with pytest.raises(DataError, match="not the weights that finished.json names"):
        subject.load(1, (1, 4))
    with pytest.raises(DataError, match="fold0_2-3: the training of this fold is not finished"):
        subject.load(0, (2, 3))


def test_rejects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training.json: cannot be read .*train folds with"):
        BundleSubject(BUNDLE, tmp_path)
    (tmp_path / "training.json").write_text(
        json.dumps({"bundle": "cow", "setting": "1", "groups": [None]})
    )
    with pytest.raises(DataError, match="holds weights of cow, not of ssl_alpnet"):
        BundleSubject(BUNDLE, tmp_path)
