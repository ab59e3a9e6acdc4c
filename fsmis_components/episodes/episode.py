"""What a self-supervised episode is, and how it is drawn: plain data, no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Episode:
    """One task: segment regions of a query slice that are shown in a support slice.

    Attributes:
        index: number of the episode in the whole training, from 0.
        attempt: how often it was redrawn before.
        volume: position of the volume in the corpus.
        support_slice: index of the support slice along the slice axis.
        query_slice: index of the query slice; equal to the support's for superpixels.
        regions: pseudo-label ids, one per way.
        seed: seed of the transforms.
    """

    index: int
    attempt: int
    volume: int
    support_slice: int
    query_slice: int
    regions: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class RegionTable:
    """Where the pseudo-labels of a volume are, all that drawing an episode needs.

    Attributes:
        areas: pixels of region r in slice z, (D, R + 1); column 0 is the background.
        allowed: slices that may be drawn, (D,); Setting 2 forbids some.
        group: volumes of one group (one folder) are drawn as often as those of another.
    """

    areas: np.ndarray
    allowed: np.ndarray
    group: int = 0

    @classmethod
    def from_labels(
        cls, labels: np.ndarray, allowed: np.ndarray | None = None, group: int = 0
    ) -> RegionTable:
        """Count the pixels of each region of a pseudo-label volume (D, H, W)."""
        count = int(labels.max()) + 1
        areas = np.stack([np.bincount(s.ravel(), minlength=count) for s in labels])
        if allowed is None:
            allowed = np.ones(len(labels), dtype=bool)
        return cls(areas.astype(np.int32), allowed, group)


@dataclass(frozen=True)
class EpisodeRule:
    """How episodes are drawn.

    Attributes:
        num_ways: pseudo-labels per pair of slices; they share the encoder's work. 1 in the paper.
        gaps: distances between support and query slice; (0,) is the paper's single slice.
        min_area: pixels that a region must have in either slice.
    """

    num_ways: int = 6
    gaps: tuple[int, ...] = (1, 2)
    min_area: int = 100


class EpisodeDrawer:
    """Draw the episode of a number: a pure function of seed, number and attempt.

    Groups are drawn with equal chance, slices of a group likewise, then the gap, then the ways.

    Args:
        tables: one per volume.
        rule: see :class:`EpisodeRule`.
        seed: seed of the whole training.

    Raises:
        ValueError: no pair of slices shares a region that is large enough.
    """

    def __init__(self, tables: Sequence[RegionTable], rule: EpisodeRule, seed: int) -> None:
        self.tables = tables
        self.rule = rule
        self.seed = seed
        groups: dict[int, list[tuple[int, int, tuple[int, ...]]]] = {}
        for v, table in enumerate(tables):
            for z in range(len(table.areas)):
                partners = tuple(
                    q for q in self._partners(len(table.areas), z) if self._ok(v, z, q)
                )
                if partners:
                    groups.setdefault(table.group, []).append((v, z, partners))
        self.pairs = [groups[g] for g in sorted(groups)]
        if not self.pairs:
            raise ValueError(
                f"EpisodeDrawer: expected at least one pair of slices {rule.gaps} apart that share "
                f"a region of {rule.min_area} pixels, got none in {len(tables)} volumes"
            )

    def draw(self, index: int, attempt: int = 0) -> Episode:
        """Return episode ``index``; another attempt gives another episode."""
        rng = np.random.default_rng([self.seed, index, attempt])
        group = self.pairs[int(rng.integers(len(self.pairs)))]
        volume, z, partners = group[int(rng.integers(len(group)))]
        query = partners[int(rng.integers(len(partners)))]
        shared = self._shared(volume, z, query)
        count = self.rule.num_ways
        # a slice with few regions repeats some: all episodes of a batch have the same ways
        regions = rng.choice(shared, size=count, replace=len(shared) < count)
        return Episode(
            index=index,
            attempt=attempt,
            volume=volume,
            support_slice=z,
            query_slice=query,
            regions=tuple(int(r) for r in regions),
            seed=int(rng.integers(2**31)),
        )

    def _partners(self, depth: int, z: int) -> list[int]:
        reached = {z + sign * gap for gap in self.rule.gaps for sign in (-1, 1)}
        return sorted(q for q in reached if 0 <= q < depth)

    def _ok(self, volume: int, z: int, query: int) -> bool:
        allowed = self.tables[volume].allowed
        return bool(allowed[z] and allowed[query]) and len(self._shared(volume, z, query)) > 0

    def _shared(self, volume: int, z: int, query: int) -> np.ndarray:
        areas = self.tables[volume].areas
        enough = np.minimum(areas[z, 1:], areas[query, 1:]) >= self.rule.min_area
        return np.flatnonzero(enough) + 1
