"""What an episode is, and how it is drawn: plain data, no image.

Self-supervised episodes lie within a volume, supervised ones between two patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsmis_components.data.errors import DataError


@dataclass(frozen=True)
class Episode:
    """One task: segment in a query slice what is shown in support slices."""

    attempt: int  # how often it was redrawn before
    support: int  # position of the support's volume in the corpus
    query: int  # position of the query's volume; between patients another one
    support_slices: tuple[int, ...]  # each of them shows all ways
    query_slice: int  # between patients it need not show the ways
    ways: tuple[int, ...]  # pseudo-label ids, or label values
    seed: int  # of the transforms


@dataclass(frozen=True)
class RegionTable:
    """Where the pseudo-labels of a volume are, all that drawing an episode needs."""

    areas: np.ndarray  # pixels of region r in slice z, (D, R + 1); column 0 is the background
    allowed: np.ndarray  # slices that may be drawn, (D,); Setting 2 forbids some
    group: int = 0  # volumes of one group (one folder) are drawn as often as those of another

    @classmethod
    def from_labels(
        cls, labels: np.ndarray, allowed: np.ndarray | None = None, group: int = 0
    ) -> RegionTable:
        """Count the pixels of each region of a pseudo-label volume (D, H, W)."""
        if allowed is None:
            allowed = np.ones(len(labels), dtype=bool)
        return cls(count_pixels(labels).astype(np.int32), allowed, group)


def count_pixels(labels: np.ndarray) -> np.ndarray:
    """Pixels of each value of a label volume (D, H, W) in each slice, (D, V + 1)."""
    count = int(labels.max()) + 1
    return np.stack([np.bincount(s.ravel(), minlength=count) for s in labels])


@dataclass(frozen=True)
class EpisodeRule:
    """How episodes are drawn."""

    num_ways: int = 6  # pseudo-labels per pair of slices, which share the encoder's work; paper: 1
    gaps: tuple[int, ...] = (1, 2)  # between support and query slice; (0,): the paper's one slice
    min_area: int = 100  # pixels that a region must have in either slice


class EpisodeDrawer:
    """Draw the episode of a number: a pure function of seed, number and attempt.

    Groups are drawn with equal chance, slices of a group likewise, then the gap, then the ways.
    There is a table for each volume. Where no pair of slices shares a region that is large enough,
    a ValueError is raised.
    """

    def __init__(self, tables: Sequence[RegionTable], rule: EpisodeRule, seed: int) -> None:
        self.tables = tables
        self.rule = rule
        self.seed = seed
        groups: dict[int, list[tuple[int, int, tuple[int, ...]]]] = {}
        for v, table in enumerate(tables):
            for z in range(len(table.areas)):
                reached = sorted({z + sign * gap for gap in rule.gaps for sign in (-1, 1)})
                partners = tuple(q for q in reached if self._ok(v, z, q))
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
            attempt=attempt,
            support=volume,
            query=volume,
            support_slices=(z,),
            query_slice=query,
            ways=tuple(int(r) for r in regions),
            seed=int(rng.integers(2**31)),
        )

    def _ok(self, volume: int, z: int, query: int) -> bool:
        allowed = self.tables[volume].allowed
        usable = 0 <= query < len(allowed) and allowed[z] and allowed[query]
        return bool(usable) and len(self._shared(volume, z, query)) > 0

    def _shared(self, volume: int, z: int, query: int) -> np.ndarray:
        areas = self.tables[volume].areas
        enough = np.minimum(areas[z, 1:], areas[query, 1:]) >= self.rule.min_area
        return np.flatnonzero(enough) + 1


@dataclass(frozen=True)
class PatientTable:
    """Where the structures of a labelled volume are, all that drawing an episode needs."""

    # pixels of each label value in each slice at the working resolution, (D, V + 1)
    areas: np.ndarray
    patient: str  # scans of one patient are never support and query of each other
    domain: tuple[str, int]  # volumes of one folder, cut in one plane, are paired with each other


@dataclass(frozen=True)
class PatientRule:
    """How episodes between patients are drawn."""

    num_ways: int = 4  # structures per episode; they share the encoder's work
    sections: tuple[int, ...] = (1, 2, 3)  # numbers of support slices, drawn evenly
    min_area: int = 40  # pixels that a structure has in a support slice
    # standard deviation of the query's height in the structure about the support's, as a share of
    # the structure's extent
    height_spread: float = 0.1
    absent: float = 0.15  # how often the query's slice lies beside the structure's extent
    # how often folders are drawn, by name, relative to the others' 1
    folder_weights: Mapping[str, float] = field(default_factory=dict)


class PatientDrawer:
    """Draw the episode of a number: a pure function of seed, number and attempt.

    A folder is drawn by the rule's weights, then one of its planes, then the structures of that
    domain, then a patient who has the structure, then another one. There is a table for each
    volume; `batch_size` consecutive episodes have one number of support slices. Where no structure
    is shown by two patients, a DataError is raised.
    """

    def __init__(
        self, tables: Sequence[PatientTable], rule: PatientRule, seed: int, batch_size: int = 1
    ) -> None:
        self.tables = tables
        self.rule = rule
        self.seed = seed
        self.batch_size = batch_size
        self.members: dict[tuple[str, int], list[int]] = {}
        for v, table in enumerate(tables):
            self.members.setdefault(table.domain, []).append(v)
        self.folders: dict[str, list[dict[int, list[int]]]] = {}
        for domain in sorted(self.members):
            if shown := self._shown(self.members[domain]):
                self.folders.setdefault(domain[0], []).append(shown)
        if not self.folders:
            raise DataError(
                f"labelled scans: no structure covers {rule.min_area} pixels in slices of two "
                f"patients ({len(tables)} volumes); label scans of another patient, too."
            )
        self.names = sorted(self.folders)
        weights = [
            next((w for name, w in rule.folder_weights.items() if name in Path(folder).parts), 1.0)
            for folder in self.names
        ]
        self.chances = np.array(weights) / sum(weights)

    def draw(self, index: int, attempt: int = 0) -> Episode:
        """Return episode ``index``; another attempt gives another episode."""
        rule = self.rule
        batch = np.random.default_rng([self.seed, 1, index // self.batch_size])
        sections = int(batch.choice(rule.sections))
        rng = np.random.default_rng([self.seed, index, attempt])
        planes = self.folders[str(rng.choice(self.names, p=self.chances))]
        shown = planes[int(rng.integers(len(planes)))]
        structure = int(rng.choice(sorted(shown)))
        support = int(rng.choice(shown[structure]))
        table = self.tables[support]
        others = [v for v in self.members[table.domain] if self.tables[v].patient != table.patient]
        query = int(rng.choice(others))
        slices, height = self._support_slices(rng, table.areas[:, structure], sections)
        shared = np.flatnonzero(table.areas[list(slices), 1:].min(0) >= rule.min_area) + 1
        more = shared[shared != structure]
        # a slice with few structures repeats some: all episodes of a batch have the same ways
        count = rule.num_ways - 1
        rest = (
            rng.choice(more, count, replace=len(more) < count) if len(more) else [structure] * count
        )
        return Episode(
            attempt=attempt,
            support=support,
            query=query,
            support_slices=slices,
            query_slice=self._query_slice(rng, self.tables[query].areas, structure, height),
            ways=(structure, *(int(s) for s in rest)),
            seed=int(rng.integers(2**31)),
        )

    def _shown(self, members: list[int]) -> dict[int, list[int]]:
        """Structures that two patients show, each with the volumes that show it."""
        volumes: dict[int, list[int]] = {}
        for v in members:
            for value in np.flatnonzero(self.tables[v].areas[:, 1:].max(0) >= self.rule.min_area):
                volumes.setdefault(int(value) + 1, []).append(v)
        return {
            value: found
            for value, found in volumes.items()
            if len({self.tables[v].patient for v in found}) > 1
        }

    def _support_slices(
        self, rng: np.random.Generator, areas: np.ndarray, count: int
    ) -> tuple[tuple[int, ...], float]:
        """Slices that show the structure, and the height of the first, 0 to 1, in its extent."""
        shown = np.flatnonzero(areas >= self.rule.min_area)
        place = int(rng.integers(len(shown)))
        near = [place]
        # volume inference takes labelled slices in a row; where there are too few, some repeat
        for step in range(1, count):
            near.append(min(max(place + (step + 1) // 2 * (-1) ** step, 0), len(shown) - 1))
        first, last = int(shown[0]), int(shown[-1])
        height = (int(shown[place]) - first) / max(last - first, 1)
        return tuple(int(shown[n]) for n in near), height

    def _query_slice(
        self, rng: np.random.Generator, areas: np.ndarray, structure: int, height: float
    ) -> int:
        depth = len(areas)
        column = areas[:, structure] if structure < areas.shape[1] else np.zeros(depth)
        shown = np.flatnonzero(column)
        if len(shown) == 0:
            return int(rng.integers(depth))
        beside = np.setdiff1d(np.arange(depth), np.arange(shown[0], shown[-1] + 1))
        if len(beside) and rng.random() < self.rule.absent:
            return int(rng.choice(beside))
        moved = min(max(height + rng.normal(0, self.rule.height_spread), 0.0), 1.0)
        return int(round(shown[0] + moved * (shown[-1] - shown[0])))
