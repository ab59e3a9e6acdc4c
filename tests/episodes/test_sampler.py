"""What an epoch begins with: a resumed training with dropout equals an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader

from fsmis_components.episodes import EpisodeSampler, EpochSetter, TrainingState

EPOCHS = 3
EPISODES = 4


class Training:
    """A network with dropout that learns from the numbers of its episodes."""

    def __init__(self, folder: Path, seed: int = 5, rank: int = 0) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.sampler = EpisodeSampler(EPISODES, rank, rank + 1)
        self.draws: list[float] = []
        self.engine = Engine(self.step)
        objects = {"network": self.network, "optimizer": self.optimizer}
        TrainingState(folder, objects, {}).attach(self.engine)
        EpochSetter(self.sampler, seed).attach(self.engine)

    def step(self, engine: Engine, batch: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.network(batch).square().sum().backward()
        self.optimizer.step()
        self.draws.append(torch.rand(()).item())

    def run(self) -> Training:
        numbers = torch.arange(float(EPISODES * EPOCHS))[:, None] / 10
        loader = DataLoader(numbers, 2, sampler=self.sampler)  # type: ignore[arg-type]
        self.engine.run(loader, max_epochs=EPOCHS)
        return self

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.network.parameters()])


@pytest.fixture
def whole(tmp_path: Path) -> Training:
    return Training(tmp_path / "whole").run()


@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED(once=3), Events.EPOCH_COMPLETED])
def test_resumes_bit_equal_with_dropout(tmp_path: Path, whole: Training, event: Events) -> None:
    def interrupt(engine: Engine) -> None:
        torch.rand(7)  # what an uninterrupted training never draws
        raise KeyboardInterrupt

    stopped = Training(tmp_path / "stopped")
    # in the middle of the second epoch; behind the state of the first
    stopped.engine.add_event_handler(
        Events.STARTED, lambda engine: engine.add_event_handler(event, interrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = Training(tmp_path / "stopped")
    torch.rand(3)
    resumed.run()
    assert torch.equal(resumed.weights(), whole.weights())
    assert resumed.draws == whole.draws[2:]
