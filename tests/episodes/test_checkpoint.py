"""The checkpoint of a training: whole after any interruption, refused under other settings."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from fsmis_components.data import atomic
from fsmis_components.data.errors import DataError
from fsmis_components.episodes import (
    EpisodeSampler,
    EpochSetter,
    TrainingState,
    WeightsSaver,
    leave_process_group,
)
from fsmis_components.episodes.checkpoint import load_state, save_state

EPOCHS = 3


class Training:
    """A network with dropout that learns from the numbers of its episodes, four an epoch."""

    def __init__(self, folder: Path, **settings: object) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.network = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.sampler = EpisodeSampler(4)
        self.engine = Engine(self.step)
        objects = {"network": self.network, "optimizer": self.optimizer}
        values = {"seed": 1, "pair_gaps": [1, 2], **settings}
        self.state = TrainingState(folder / "training_state", objects, values)
        self.state.attach(self.engine)
        EpochSetter(self.sampler, seed=5).attach(self.engine)
        WeightsSaver(self.network, folder / "models", "dice").attach(self.engine)

    def step(self, engine: Engine, batch: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.network(batch).square().sum().backward()
        self.optimizer.step()

    def run(self) -> Training:
        numbers = torch.arange(4.0 * EPOCHS)[:, None] / 10
        self.engine.run(DataLoader(numbers, 2, sampler=self.sampler), max_epochs=EPOCHS)  # type: ignore[arg-type]
        return self

    def stopped_by(self, event: Events, handler: Callable[..., object]) -> Training:
        self.engine.add_event_handler(event, handler)
        with pytest.raises(KeyboardInterrupt):
            self.run()
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / "models" / "model.pt", weights_only=True)


def interrupt(engine: Engine) -> None:
    torch.rand(7)  # what an uninterrupted training never draws
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("whole")).run()


def assert_finished_as(training: Training, whole: Training) -> None:
    assert training.engine.state.epoch == EPOCHS
    assert training.engine.state.iteration == 2 * EPOCHS
    for weights in (training.weights(), training.network.state_dict()):
        assert all(torch.equal(weights[name], own) for name, own in whole.weights().items())
    saved = load_state(training.folder / "training_state")
    assert saved["epoch"] == EPOCHS
    assert torch.equal(saved["network"]["0.weight"], whole.weights()["0.weight"])


@pytest.mark.parametrize(
    "event",
    [
        Events.ITERATION_COMPLETED(once=3),
        # a handler behind the weights file but before the state: a validation, a picture
        Events.EPOCH_COMPLETED(once=2),
        Events.EPOCH_COMPLETED(once=3),
    ],
)
def test_goes_on_after_an_interruption(tmp_path: Path, whole: Training, event: Events) -> None:
    stopped = Training(tmp_path / "stopped").stopped_by(event, interrupt)
    assert load_state(stopped.state.folder)["epoch"] < EPOCHS
    assert_finished_as(Training(tmp_path / "stopped").run(), whole)


@pytest.mark.parametrize("moment", [0, 1, 3])
def test_a_full_disk_is_one_sentence_and_the_training_goes_on(
    tmp_path: Path, whole: Training, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    left, replace = moment, os.replace

    def full(source: object, target: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)  # type: ignore[arg-type]

    # per epoch: the weights and the state
    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", full)
        with pytest.raises(SystemExit, match=r"No space left on device\); free some space"):
            Training(tmp_path / "a").run()
    assert_finished_as(Training(tmp_path / "a").run(), whole)


def test_weights_on_a_full_disk_are_an_error_of_the_disk(tmp_path: Path) -> None:
    """PyTorch's own writer of files raises a RuntimeError there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    training = Training(tmp_path)
    training.network[0].weight.data = torch.zeros(300, 300)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(SystemExit, match="models: cannot be written .*free some space"):
            WeightsSaver(training.network, tmp_path / "models", "dice")(training.engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"seed": 2}, "seed 1 -> 2"), ({"pair_gaps": [0]}, r"pair_gaps \[1, 2\] -> \[0\]")],
)
def test_other_settings_are_refused(whole: Training, settings: dict, said: str) -> None:
    with pytest.raises(SystemExit, match=said + r".*name another --output_dir"):
        Training(whole.folder, **settings).run()


def test_the_best_weights_follow_the_metric(tmp_path: Path) -> None:
    training = Training(tmp_path)
    saver = WeightsSaver(training.network, tmp_path, "dice")
    validation = Engine(lambda engine, batch: None)
    saver.attach(validation)
    for value in (0.5, 0.25, 0.75):
        validation.state.metrics["dice"] = value
        training.network[0].bias.data.fill_(value)
        saver(validation)
        best = torch.load(tmp_path / "model_best.pt", weights_only=True)
        assert best["0.bias"].tolist() == [max(value, 0.5)] * 8
    record = tmp_path / "model_best.json"
    assert record.read_text() == '{"metric": "dice", "value": 0.75}'
    for damaged in ('{"metric": "dice", "val', "[]", "{}"):
        record.write_text(damaged)
        with pytest.raises(SystemExit, match=r"model_best\.json: damaged.*delete it"):
            saver(validation)


def test_a_process_saves_a_training_of_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    training = Training(tmp_path).run()
    assert load_state(training.state.folder)["epoch"] == training.engine.state.max_epochs


def gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    network = DistributedDataParallel(torch.nn.Linear(3, 3))
    network(torch.ones(2, 3)).sum().backward()
    assert gloo_threads()
    leave_process_group(network)
    assert not gloo_threads()
    assert not dist.is_initialized()


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b[:900] + b"x" + b[901:], None])
def test_a_damaged_state_is_named(tmp_path: Path, damage) -> None:
    path = save_state({"weight": torch.zeros(1000)}, tmp_path)
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"state.pt: .* is missing or damaged .* to begin anew"):
        load_state(tmp_path)
