"""Drawing episodes, within a volume and between patients: plain data, replayable from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.episodes import EpisodeRule, EpisodeSampler, PatientRule
from fsmis_components.episodes.episode import (
    Episode,
    EpisodeDrawer,
    PatientDrawer,
    PatientTable,
    RegionTable,
)

DEPTH = 12


def blocks(depth: int = 6) -> np.ndarray:
    """Three regions: 1 in all slices, 2 in the lower half, 3 in the upper half."""
    labels = np.zeros((depth, 20, 20), dtype=np.int32)
    labels[:, :10] = 1
    labels[: depth // 2, 10:] = 2
    labels[depth // 2 :, 10:] = 3
    return labels


def drawer(**rule: object) -> EpisodeDrawer:
    table = RegionTable.from_labels(blocks())
    return EpisodeDrawer([table, table], EpisodeRule(**({"num_ways": 2} | rule)), 0)


def test_regions_are_shown_in_both_slices_and_gaps_are_kept() -> None:
    gaps, draws = set(), drawer()
    for i in range(100):
        e = draws.draw(i)
        gaps.add(abs(e.support_slices[0] - e.query_slice))
        for region in e.ways:
            assert (blocks()[e.support_slices[0]] == region).any()
            assert (blocks()[e.query_slice] == region).any()
    assert gaps == {1, 2}


def test_groups_are_drawn_equally_often() -> None:
    large = [RegionTable.from_labels(blocks(), group=0)] * 9
    draws = EpisodeDrawer(
        [*large, RegionTable.from_labels(blocks(), group=1)], EpisodeRule(1), seed=0
    )
    drawn = [draws.draw(i).support for i in range(400)]
    assert 150 < drawn.count(9) < 250


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one pair of slices"):
        drawer(min_area=1000)


def test_sampler_numbers_episodes_through_all_epochs_and_processes() -> None:
    sampler = EpisodeSampler(4)
    sampler.epoch = 2
    assert list(sampler) == [8, 9, 10, 11]
    parts = [list(EpisodeSampler(7, rank, 2)) for rank in range(2)]
    assert parts == [[0, 2, 4], [1, 3, 5]]


def table(
    patient: str, folder: str = "a", rows: tuple[tuple[int, int, int], ...] = ()
) -> PatientTable:
    """Structures (value, first slice, last slice) of 100 pixels each."""
    areas = np.zeros((DEPTH, 4), dtype=np.int32)
    for value, first, last in rows or ((1, 1, 10), (2, 4, 7)):
        areas[first : last + 1, value] = 100
    return PatientTable(areas, patient, (folder, 2))


TABLES = [table("p1"), table("p1"), table("p2"), table("p3", rows=((1, 2, 9), (3, 3, 5)))]


def drawn(tables: list[PatientTable] = TABLES, **rule: object) -> list[Episode]:
    draws = PatientDrawer(tables, PatientRule(**({"num_ways": 2} | rule)), seed=3, batch_size=4)
    return [draws.draw(index) for index in range(200)]


@pytest.mark.parametrize(("weights", "share"), [({}, 0.5), ({"b": 3.0}, 0.75)])
def test_support_and_query_are_two_patients_of_one_folder(weights: dict, share: float) -> None:
    """Folders are drawn by their weights, however many scans they hold."""
    tables = [*TABLES, table("q1", "b"), table("q2", "b")]
    episodes = drawn(tables, folder_weights=weights)
    for episode in episodes:
        support, query = tables[episode.support], tables[episode.query]
        assert support.patient != query.patient and support.domain == query.domain
    found = np.mean([tables[e.support].domain[0] == "b" for e in episodes])
    assert abs(found - share) < 0.1


def test_the_support_shows_every_structure_in_every_slice() -> None:
    for episode in drawn():
        areas = TABLES[episode.support].areas
        for place in episode.support_slices:
            assert all(areas[place, structure] for structure in episode.ways)
        # a structure that one patient alone shows cannot lead from one to another
        assert episode.ways[0] != 3


def test_heights_match_and_absent_structures_are_drawn() -> None:
    episodes = [e for e in drawn(absent=0.25) if e.query != 3]
    beside = [e for e in episodes if not TABLES[e.query].areas[e.query_slice, e.ways[0]]]
    assert 0.15 < len(beside) / len(episodes) < 0.35
    for episode in drawn(absent=0.0, height_spread=0.0):
        query = TABLES[episode.query].areas[:, episode.ways[0]]
        if query.any():  # patient 3 has no structure 2: any slice of it will do
            own = np.flatnonzero(TABLES[episode.support].areas[:, episode.ways[0]])
            other = np.flatnonzero(query)
            height = (episode.support_slices[0] - own[0]) / (own[-1] - own[0])
            found = (episode.query_slice - other[0]) / (other[-1] - other[0])
            assert abs(height - found) <= 0.5 / (other[-1] - other[0]) + 1e-6


def test_one_patient_alone_is_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match="slices of two patients.*label scans of another patient"):
        drawn([table("p1"), table("p1")])
