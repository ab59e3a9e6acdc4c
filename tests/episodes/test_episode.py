"""Drawing episodes: plain data, replayable from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.episodes import EpisodeDrawer, EpisodeRule, EpisodeSampler, RegionTable


def blocks(depth: int = 6) -> np.ndarray:
    """Three regions: 1 in all slices, 2 in the lower half, 3 in the upper half."""
    labels = np.zeros((depth, 20, 20), dtype=np.int32)
    labels[:, :10] = 1
    labels[: depth // 2, 10:] = 2
    labels[depth // 2 :, 10:] = 3
    return labels


def drawer(seed: int = 0, **rule: object) -> EpisodeDrawer:
    table = RegionTable.from_labels(blocks())
    return EpisodeDrawer([table, table], EpisodeRule(**({"num_ways": 2} | rule)), seed)


def test_regions_are_shown_in_both_slices_and_gaps_are_kept() -> None:
    gaps = set()
    for i in range(200):
        e = drawer().draw(i)
        gaps.add(abs(e.support_slices[0] - e.query_slice))
        for region in e.ways:
            assert (blocks()[e.support_slices[0]] == region).any()
            assert (blocks()[e.query_slice] == region).any()
    assert gaps == {1, 2}


def test_groups_are_drawn_equally_often() -> None:
    large = [RegionTable.from_labels(blocks(), group=0)] * 9
    small = RegionTable.from_labels(blocks(), group=1)
    drawn = [EpisodeDrawer([*large, small], EpisodeRule(1), 0).draw(i).support for i in range(400)]
    assert 150 < drawn.count(9) < 250


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one pair of slices"):
        drawer(min_area=1000)


def test_sampler_numbers_episodes_through_all_epochs() -> None:
    sampler = EpisodeSampler(4)
    assert list(sampler) == [0, 1, 2, 3]
    sampler.epoch = 2
    assert list(sampler) == [8, 9, 10, 11]


def test_processes_share_the_episodes_of_an_epoch() -> None:
    parts = [list(EpisodeSampler(7, rank, 2)) for rank in range(2)]
    assert parts == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(ValueError, match="at least one episode per process"):
        EpisodeSampler(1, 0, 2)
