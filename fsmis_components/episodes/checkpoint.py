"""Handlers that let a training be stopped at any time and go on as if it had not been; its end."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from filelock import AcquireReturnProxy
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fsmis_components.data.atomic import atomic_write_text, lock_folder, remove_unfinished
from fsmis_components.data.errors import DataError, exit_on_data_error, unwritable, writing
from fsmis_components.data.weights import write_torch

logger = logging.getLogger(__name__)

_BEST = "model_best.json"
_STATE = "state.pt"


class TrainingState:
    """Save the whole training after each epoch; begin from what is saved.

    Episodes are numbered, so the weights, the optimiser, the schedule and the epoch are all that a
    training consists of: an interrupted one ends with the same weights as an uninterrupted one.
    Several processes share a training where a network is `DistributedDataParallel`; else each has
    its own.

    Args:
        folder: gets the checkpoint `state.pt`, which is replaced after each epoch.
        objects: what is saved beside the epoch, each with ``state_dict`` and ``load_state_dict``.
        settings: plain numbers, strings and lists that must be the same when a training goes on.
        max_minutes: the run ends after the epoch in which they are over; None: there is no limit.

    Raises:
        SystemExit: the limit is no number above 0.
    """

    @exit_on_data_error
    def __init__(
        self,
        folder: str | Path,
        objects: Mapping[str, Any],
        settings: Mapping[str, Any],
        max_minutes: float | None = None,
    ) -> None:
        limit = float("inf") if max_minutes is None else max_minutes
        if not (isinstance(limit, int | float) and limit > 0):
            raise DataError(
                f"max_minutes: expected minutes above 0, or None for no limit, got {limit!r}."
            )
        self.folder = Path(folder)
        self.objects = objects
        self.settings = dict(settings)
        self.limit = 60 * limit
        self.seconds = 0.0  # of the epochs that were saved, over all pieces of the training
        self._lock: AcquireReturnProxy | None = None
        shared = any(isinstance(item, DistributedDataParallel) for item in objects.values())
        self._processes = idist.get_world_size() if shared else 1
        self._first = idist.get_rank() == 0 or not shared

    def attach(self, engine: Engine) -> None:
        """Restore when the engine starts, save when an epoch is complete."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self.release)
        engine.add_event_handler(Events.TERMINATE, self.release)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def release(self) -> None:
        """Let another training write into the folder; the end of the process does the same."""
        if self._lock is not None:
            self._lock.lock.release()

    @exit_on_data_error
    def _fail(self, engine: Engine, error: BaseException) -> None:
        self.release()
        if not isinstance(error, OSError) or error.errno is None:
            raise error
        # pictures and curves are written by libraries that let it pass
        place = error.filename or self.folder.parent
        stopped = f"the training stopped after epoch {engine.state.epoch - 1}: {place}"
        raise unwritable(stopped, error) from error

    @exit_on_data_error
    def _begin(self, engine: Engine) -> None:
        if self._first:
            self._lock = lock_folder(self.folder)
        try:
            self.restore(engine)
        except SystemExit:
            self.release()
            raise
        self.started = monotonic()
        self.former = self.seconds
        # attached only now, to come behind the other handlers of an epoch: where one of them is
        # interrupted, the epoch is done again, and no weights file or validation is missing
        if not engine.has_event_handler(self.save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    @exit_on_data_error
    def restore(self, engine: Engine) -> None:
        """Go on from the checkpoint where there is one.

        Raises:
            SystemExit: the checkpoint is damaged or belongs to other settings.
        """
        if not has_state(self.folder):
            if (self.folder / "index.json").is_file():
                raise DataError(
                    f"{self.folder}: a training of version 0.1 lies here, with which this one "
                    "cannot go on; name another --output_dir and begin from its weights with "
                    "--initial_weights."
                )
            return
        saved = load_state(self.folder)
        different = sorted(k for k, v in self.settings.items() if saved["settings"].get(k) != v)
        if different:
            changes = ", ".join(
                f"{k} {saved['settings'].get(k)} -> {self.settings[k]}" for k in different
            )
            raise DataError(
                f"{self.folder}: a training with other settings lies here ({changes}); name "
                "another --output_dir, or the old settings to go on with it."
            )
        for name, item in self.objects.items():
            item.load_state_dict(saved[name])
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["iteration"]
        self.seconds = saved["seconds"]
        logger.info("%s: the training goes on after epoch %d", self.folder, saved["epoch"])

    @exit_on_data_error
    def save(self, engine: Engine) -> None:
        """Replace the checkpoint; of several processes the first one does. End the run in time.

        Raises:
            SystemExit: it cannot be written.
        """
        here = monotonic() - self.started
        self.seconds = self.former + here
        if self._first:
            state: dict[str, Any] = {k: v.state_dict() for k, v in self.objects.items()}
            state["epoch"] = engine.state.epoch
            state["iteration"] = engine.state.iteration
            state["seconds"] = self.seconds
            state["settings"] = self.settings
            save_state(state, self.folder)
        late = here > self.limit
        if self._processes > 1:  # all processes must stop after the same epoch
            late = bool(idist.broadcast(float(late), src=0))
        if late and engine.state.epoch < (engine.state.max_epochs or 0):
            logger.info("%s: max_minutes are over; give the same command to go on", self.folder)
            engine.terminate()


def save_state(state: Mapping[str, Any], folder: str | Path) -> Path:
    """Write the state of a training into its folder; where that fails, the former one stays."""
    path = Path(folder) / _STATE
    remove_unfinished([path])
    with writing(folder):
        return write_torch(state, path)


def has_state(folder: str | Path) -> bool:
    """Whether a state was written into the folder."""
    return (Path(folder) / _STATE).is_file()


def load_state(folder: str | Path) -> dict[str, Any]:
    """Read the state of a training, onto the CPU; a missing or damaged one is a `DataError`."""
    path = Path(folder) / _STATE
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()  # PyTorch writes checksums and does not compare them
        if wrong is not None:
            raise ValueError(f"{wrong} does not fit its checksum")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file fails in the reader in any way
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path}: the state of the training is missing or damaged ({reason}); copy it again "
            "from where it came, or delete it to begin anew."
        ) from error


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

    @exit_on_data_error
    def __call__(self, engine: Engine) -> None:
        """Write ``model.pt``, or ``model_best.pt`` where the engine carries the key metric.

        Raises:
            SystemExit: they cannot be written, or the record of the best is damaged.
        """
        value = engine.state.metrics.get(self.key_metric)
        with writing(self.folder):
            if value is None:
                write_torch(plain_weights(self.network), self.folder / "model.pt")
            elif float(value) > self._best():
                write_torch(plain_weights(self.network), self.folder / "model_best.pt")
                text = json.dumps({"metric": self.key_metric, "value": float(value)})
                atomic_write_text(self.folder / _BEST, text)

    def _best(self) -> float:
        record = self.folder / _BEST
        if not record.exists():
            return float("-inf")
        try:
            return float(json.loads(record.read_text(encoding="utf-8"))["value"])
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(
                f"{record}: damaged; delete it, and the best weights are chosen anew among those "
                "to come."
            ) from error


def plain_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict on the CPU, `DistributedDataParallel` unwrapped."""
    state = getattr(network, "module", network).state_dict()
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def leave_process_group(network: DistributedDataParallel) -> None:
    """Wait for the other processes, then end the common group and its threads.

    The network keeps the group alive beyond ``destroy_process_group``, and with it gloo's threads.
    One that lets go of a gradient while Python shuts down asks for the interpreter's lock and
    aborts the process (PyTorch issue 179291), so the network lets go first.

    Args:
        network: network that was trained; no step can follow.
    """
    dist.barrier()
    vars(network).update(reducer=None, logger=None, process_group=None)
    dist.destroy_process_group()
