"""The order of episodes: each has a number that no worker, process or resume can change."""

from __future__ import annotations

from collections.abc import Iterator

from ignite.engine import Engine, Events
from torch.utils.data import Sampler


class EpisodeSampler(Sampler[int]):
    """Yield the numbers of one epoch's episodes, from ``epoch * episodes_per_epoch`` on.

    Args:
        episodes_per_epoch: episodes of one epoch, over all processes.
        rank: number of this process.
        world_size: number of processes; each takes every ``world_size``-th episode.
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
    """Ignite handler that tells the sampler which epoch begins, also after a resume."""

    def __init__(self, sampler: EpisodeSampler) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Set the epoch before the engine asks the loader for its first batch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the sampler's epoch, which counts from 0."""
        self.sampler.epoch = engine.state.epoch - 1
