from __future__ import annotations

from pathlib import Path

import pytest
import torch
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from ignite.engine import Engine

from fsmis_components.data.weights import read_state_dict
from fsmis_components.episodes import PublishWeights
from fsmis_components.support import SupportPack, SupportSource, weights_hash


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A bundle's models with weights and a pack that fits them."""
    network = IntensityNetwork()
    write_scan(tmp_path / "s", 1, block_label())
    path = tmp_path / "models" / "support_pack.safetensors"
    SupportSource(tmp_path / "s", save_support_pack=path, spatial_size=24).resolve(network)
    torch.save(network.state_dict(), path.with_name("model.pt"))
    return path.parent


def train(models: Path, gain: float, active: bool = True) -> IntensityNetwork:
    network = IntensityNetwork()

    def step(engine: Engine, batch: object) -> None:
        torch.nn.init.constant_(network.gain, gain)

    engine = Engine(step)
    PublishWeights(network, models, active).attach(engine)
    engine.run([0], max_epochs=2)
    return network


def test_new_weights_serve_and_nothing_is_lost(models: Path) -> None:
    first = weights_hash(IntensityNetwork())
    network = train(models, 2.0)
    torch.testing.assert_close(read_state_dict(models / "model.pt"), dict(network.state_dict()))
    former = models / "previous" / first[:12]
    assert read_state_dict(former / "model.pt")["gain"].item() == 1.0
    assert SupportPack.load(former / "support_pack.safetensors").weights_hash == first
    assert not (models / "support_pack.safetensors").exists()
    train(models, 3.0)
    assert len(list((models / "previous").glob("*/model.pt"))) == 2
    assert not list(models.rglob(".*"))  # no half-written file


def test_other_trainings_leave_the_bundle_as_it_is(models: Path) -> None:
    before = (models / "model.pt").read_bytes()
    train(models, 2.0, active=False)
    assert (models / "model.pt").read_bytes() == before


def test_a_failed_training_is_not_published(models: Path) -> None:
    before = (models / "model.pt").read_bytes()
    with pytest.raises(SystemExit, match="weights that are no numbers"):
        train(models, float("nan"))
    assert (models / "model.pt").read_bytes() == before
