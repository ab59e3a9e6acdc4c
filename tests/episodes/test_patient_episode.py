"""Drawing episodes between patients: plain data, replayable from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.episodes import PatientDrawer, PatientRule, PatientTable

DEPTH = 12


def table(
    patient: str, folder: str = "a", rows: tuple[tuple[int, int, int], ...] = ()
) -> PatientTable:
    """Structures (value, first slice, last slice) of 100 pixels each."""
    areas = np.zeros((DEPTH, 4), dtype=np.int32)
    for value, first, last in rows or ((1, 1, 10), (2, 4, 7)):
        areas[first : last + 1, value] = 100
    return PatientTable(areas, patient, (folder, 2))


TABLES = [table("p1"), table("p1"), table("p2"), table("p3", rows=((1, 2, 9), (3, 3, 5)))]


def drawn(count: int = 300, tables: list[PatientTable] = TABLES, **rule: object) -> list:
    drawer = PatientDrawer(tables, PatientRule(**({"num_ways": 2} | rule)), seed=3, batch_size=4)
    return [drawer.draw(index) for index in range(count)]


def test_same_seed_draws_the_same_episodes() -> None:
    assert drawn(40) == drawn(40)
    drawer = PatientDrawer(TABLES, PatientRule(), seed=4)
    assert drawer.draw(3) != drawer.draw(3, attempt=1)


def test_support_and_query_are_two_patients_of_one_domain() -> None:
    tables = [*TABLES, table("q1", "b"), table("q2", "b")]
    for episode in drawn(tables=tables):
        support, query = tables[episode.support], tables[episode.query]
        assert support.patient != query.patient and support.domain == query.domain
    # folders are drawn evenly, however many scans they hold
    share = np.mean([tables[e.support].domain[0] == "b" for e in drawn(tables=tables)])
    assert 0.4 < share < 0.6


def test_the_support_shows_every_structure_in_every_slice() -> None:
    for episode in drawn():
        areas = TABLES[episode.support].areas
        for place in episode.support_slices:
            assert all(areas[place, structure] for structure in episode.ways)
    # a structure that one patient alone shows cannot lead from one to another
    assert not any(e.ways[0] == 3 for e in drawn())


def test_a_batch_has_one_number_of_support_slices() -> None:
    episodes = drawn(sections=(1, 2, 3))
    counts = [len(e.support_slices) for e in episodes]
    assert set(counts) == {1, 2, 3}
    assert all(len(set(counts[i : i + 4])) == 1 for i in range(0, 300, 4))


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


def test_one_patient_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two patients"):
        PatientDrawer([table("p1"), table("p1")], PatientRule(), 0)


def test_a_folder_is_drawn_by_its_weight() -> None:
    tables = [table("a"), table("b"), table("a", folder="b"), table("b", folder="b")]
    episodes = drawn(tables=tables, folder_weights={"b": 3.0})
    share = np.mean([tables[e.support].domain[0] == "b" for e in episodes])
    assert 0.68 < share < 0.82
