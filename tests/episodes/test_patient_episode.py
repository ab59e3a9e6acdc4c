"""Drawing episodes between patients: plain data, replayable from the seed."""

from __future__ import annotations

import numpy as np

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


def test_a_folder_is_drawn_by_its_weight() -> None:
    tables = [table("a"), table("b"), table("a", folder="b"), table("b", folder="b")]
    episodes = drawn(tables=tables, folder_weights={"b": 3.0})
    share = np.mean([tables[e.support].domain[0] == "b" for e in episodes])
    assert 0.68 < share < 0.82
