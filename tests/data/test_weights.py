"""Weights are plain tensors that fit the network, or one sentence says why not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.weights import (
    fill_network,
    load_initial_weights,
    read_state_dict,
)


class Encoder(nn.Linear):
    def load_torchvision(self, state: dict[str, Tensor]) -> None:
        if "backbone.bias" not in state:
            raise ValueError("backbone.bias is missing")
        nn.init.constant_(self.bias, float(state["backbone.bias"][0]))


class Method(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.encoder = Encoder(2, 3)
        self.head = nn.Linear(3, width)


def test_a_torchvision_checkpoint_goes_to_the_encoder(tmp_path: Path) -> None:
    network = Method()
    torch.save({"backbone.bias": torch.full((1,), 3.0)}, tmp_path / "coco.pt")
    load_initial_weights(network, str(tmp_path / "coco.pt"), tmp_path)
    assert network.encoder.bias[0].item() == 3.0
    torch.save({"backbone.other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(SystemExit, match=r"other\.pt: backbone\.bias is missing"):
        load_initial_weights(network, str(tmp_path / "other.pt"), tmp_path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


def test_another_method_gives_its_encoder_where_that_is_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    source, target = Method(4), Method(5)
    head = target.head.weight.clone()
    torch.save(source.state_dict(), tmp_path / "other.pt")
    with pytest.raises(SystemExit, match="another network"):
        load_initial_weights(target, str(tmp_path / "other.pt"), tmp_path)
    load_initial_weights(target, str(tmp_path / "other.pt"), tmp_path, True)
    assert torch.equal(target.encoder.weight, source.encoder.weight)
    assert torch.equal(target.head.weight, head)
    assert "2 other entries begin anew" in caplog.text


def test_nothing_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("evil.pt", pickle.dumps(Evil())), ("text.pt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: not a file of plain weights"):
            fill_network(Method(), tmp_path / name)
    torch.save({"a": Evil()}, tmp_path / "inside.pt")
    with pytest.raises(DataError, match="not a file of plain weights"):
        fill_network(Method(), tmp_path / "inside.pt")
    assert "unpickled" not in capsys.readouterr().out


def test_half_precision_is_a_form_of_storage(tmp_path: Path) -> None:
    half = {"a": torch.rand(3, 3).half(), "count": torch.tensor(3)}
    torch.save(half, tmp_path / "model.pt")
    read = read_state_dict(tmp_path / "model.pt")
    assert read["a"].dtype == torch.float32 and read["count"].dtype == torch.int64
    assert torch.equal(read["a"], half["a"].float())
