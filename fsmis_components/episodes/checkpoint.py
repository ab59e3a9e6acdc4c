"""What lets a training be stopped at any time and go on as if it had not been; its end."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
import torch.distributed as dist
from filelock import AcquireReturnProxy
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from fsmis_components.data.atomic import lock_folder, remove_unfinished
from fsmis_components.data.errors import DataError, exit_on_data_error, unwritable, writing
from fsmis_components.data.weights import write_torch

logger = logging.getLogger(__name__)

_STATE = "state.pt"


class EpisodeSampler(Sampler[int]):
    """Yield the numbers of one epoch's episodes, from ``epoch * episodes_per_epoch`` on.

    Of ``world_size`` processes each takes every ``world_size``-th episode, from its ``rank`` on.
    """

    def __init__(self, episodes_per_epoch: int, rank: int = 0, world_size: int = 1) -> None:
        if episodes_per_epoch < world_size:
            raise ValueError(
                f"EpisodeSampler: expected at least one episode per process and epoch, got "
                f"{episodes_per_epoch} episodes for {world_size} processes"
            )
        self.count = episodes_per_epoch // world_size
        self.episodes_per_epoch = episodes_per_epoch
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the current epoch that belong to this process."""
        first = self.epoch * self.episodes_per_epoch + self.rank
        return iter(range(first, first + self.count * self.world_size, self.world_size))

    def __len__(self) -> int:
        """Return the number of episodes of this process per epoch."""
        return self.count


class EpochSetter:
    """Ignite handler that makes an epoch the same whether or not a training was resumed before it.

    The sampler learns which epoch begins, and torch's generators, which dropout and a network's
    own draws use, begin at a pure function of the seed, the epoch and the process.
    """

    def __init__(self, sampler: EpisodeSampler, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Set the epoch before the engine asks the loader for its first batch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the sampler's epoch, which counts from 0, and the generators of all devices."""
        self.sampler.epoch = engine.state.epoch - 1
        mixed = np.random.SeedSequence([self.seed, self.sampler.epoch, self.sampler.rank])
        torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))


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
    """

    def __init__(
        self, folder: str | Path, objects: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self.objects = objects
        self.settings = dict(settings)
        self.seconds = 0.0  # of the epochs that were saved, over all pieces of the training
        self._lock: AcquireReturnProxy | None = None
        shared = any(isinstance(item, DistributedDataParallel) for item in objects.values())
        self._first = idist.get_rank() == 0 or not shared

    def attach(self, engine: Engine) -> None:
        """Restore when the engine starts, save when an epoch is complete."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self.release)
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
            self._restore(engine)
        except DataError:
            self.release()
            raise
        self.started = monotonic() - self.seconds
        # attached only now, to come behind the other handlers of an epoch: where one of them is
        # interrupted, the epoch is done again, and no weights file or validation is missing
        if not engine.has_event_handler(self.save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def _restore(self, engine: Engine) -> None:
        if not has_state(self.folder):
            return
        saved = load_state(self.folder)
        former = saved["settings"]
        changes = [
            f"{name} {former.get(name)} -> {value}"
            for name, value in sorted(self.settings.items())
            if former.get(name) != value
        ]
        if changes:
            raise DataError(
                f"{self.folder}: a training with other settings lies here ({', '.join(changes)}); "
                "name another --output_dir, or the old settings to go on with it."
            )
        for name, item in self.objects.items():
            item.load_state_dict(saved[name])
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["iteration"]
        self.seconds = saved["seconds"]
        logger.info("%s: the training goes on after epoch %d", self.folder, saved["epoch"])

    @exit_on_data_error
    def save(self, engine: Engine) -> None:
        """Replace the checkpoint; of several processes the first one does."""
        self.seconds = monotonic() - self.started
        if self._first:
            state = {name: item.state_dict() for name, item in self.objects.items()}
            state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            state |= {"seconds": self.seconds, "settings": self.settings}
            save_state(state, self.folder)


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


def leave_process_group(network: DistributedDataParallel) -> None:
    """Wait for the other processes, then end the common group and its threads.

    The network, which takes no step after it, keeps the group alive beyond
    ``destroy_process_group``, and with it gloo's threads. One that lets go of a gradient while
    Python shuts down asks for the interpreter's lock and aborts the process (PyTorch issue 179291),
    so the network lets go first.
    """
    dist.barrier()
    vars(network).update(reducer=None, logger=None, process_group=None)
    dist.destroy_process_group()
