"""Handlers that let a training be stopped at any time and go on as if it had not been."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from fsmis_components.data.errors import DataError, exit_on_data_error

logger = logging.getLogger(__name__)


class TrainingState:
    """Save the whole training after each epoch; begin from what is saved.

    Episodes are numbered, so the weights, the optimiser, the schedule and the epoch are all that a
    training consists of: an interrupted one ends with the same weights as an uninterrupted one.

    Args:
        path: the checkpoint, rewritten atomically after each epoch.
        objects: what is saved beside the epoch, each with ``state_dict`` and ``load_state_dict``.
        settings: plain numbers and strings that must be the same when a training goes on.
    """

    def __init__(
        self, path: str | Path, objects: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self.objects = objects
        self.settings = dict(settings)

    def attach(self, engine: Engine) -> None:
        """Restore when the engine starts, save when an epoch is complete."""
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    @exit_on_data_error
    def restore(self, engine: Engine) -> None:
        """Go on from the checkpoint where there is one.

        Raises:
            SystemExit: the checkpoint belongs to other settings.
        """
        if not self.path.exists():
            return
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        different = sorted(k for k, v in self.settings.items() if saved["settings"].get(k) != v)
        if different:
            changes = ", ".join(
                f"{k} {saved['settings'].get(k)} -> {self.settings[k]}" for k in different
            )
            raise DataError(
                f"{self.path}: a training with other settings lies here ({changes}); name another "
                "--output_dir, or the old settings to go on with it."
            )
        for name, item in self.objects.items():
            item.load_state_dict(saved[name])
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["iteration"]
        logger.info("%s: the training goes on after epoch %d", self.path, saved["epoch"])

    def save(self, engine: Engine) -> None:
        """Write the checkpoint so that a half-written one can never be found."""
        state: dict[str, Any] = {k: v.state_dict() for k, v in self.objects.items()}
        state["epoch"] = engine.state.epoch
        state["iteration"] = engine.state.iteration
        state["settings"] = self.settings
        _save(state, self.path)


class WeightsSaver:
    """Write plain state dicts: the last weights after each epoch, the best after a validation.

    Args:
        network: whose weights are written, ``DistributedDataParallel`` unwrapped.
        folder: gets ``model.pt`` (last) and ``model_best.pt`` with ``model_best.json``.
        key_metric: name of the validation metric; the greater the better.
    """

    def __init__(self, network: nn.Module, folder: str | Path, key_metric: str) -> None:
        self.network = network
        self.folder = Path(folder)
        self.key_metric = key_metric

    def attach(self, engine: Engine) -> None:
        """Write the best weights when a trainer's or a validation's engine is done."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write ``model.pt``, or ``model_best.pt`` where the engine carries the key metric."""
        value = engine.state.metrics.get(self.key_metric)
        if value is None:
            _save(self._weights(), self.folder / "model.pt")
            return
        record = self.folder / "model_best.json"
        best = json.loads(record.read_text())["value"] if record.exists() else float("-inf")
        if float(value) > best:
            _save(self._weights(), self.folder / "model_best.pt")
            text = json.dumps({"metric": self.key_metric, "value": float(value)})
            _replace(record, lambda temporary: temporary.write_text(text))

    def _weights(self) -> dict[str, torch.Tensor]:
        network = getattr(self.network, "module", self.network)
        return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def _save(state: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda temporary: torch.save(state, temporary))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    temporary.replace(path)
