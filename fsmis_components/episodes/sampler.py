"""What an epoch begins with, whatever came before: its episodes' numbers and torch's seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
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
    """Ignite handler that makes an epoch the same whether or not a training was resumed before it.

    The sampler learns which epoch begins, and torch's generators, which dropout and a network's
    own draws use, begin at a pure function of the seed, the epoch and the process.

    Args:
        sampler: yields the numbers of the episodes.
        seed: seed of the whole training, 0 or more.
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
