from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pairs import benchmark_dice, block_pairs, tiny_cow

from fsmis_components.evaluation.decision_pictures.cow_decision import (
    CowDecision,
    _hard_positions,
    decide_cow,
)
from fsmis_components.layers.hard_prototypes import HardPrototypes

MAPS = ("similarity", "foreground", "background", "margin")


def maps(decision: CowDecision) -> list[np.ndarray]:
    return [getattr(decision, name) for name in MAPS]


@pytest.mark.parametrize("settings", [{}, {"fusion": "mean"}, {"hpg": "figure"}, {"hpg": "none"}])
def test_the_fused_maps_give_the_margin(tmp_path: Path, settings: dict[str, str]) -> None:
    decision = decide_cow(tiny_cow(**settings), block_pairs(tmp_path)[0])
    assert all(found.shape == (24, 20) for found in maps(decision))
    difference = decision.foreground - decision.background
    assert np.ptp(decision.margin) > 0
    np.testing.assert_allclose(difference, decision.margin, rtol=1e-4, atol=1e-4)
    assert np.abs(decision.similarity).max() <= 1 + 1e-5


def test_the_dice_is_that_of_the_benchmark(tmp_path: Path) -> None:
    pairs = block_pairs(tmp_path)
    network = tiny_cow()
    for pair, expected in zip(pairs, benchmark_dice(tmp_path, network, pairs), strict=True):
        decision = decide_cow(network, pair)
        assert decision.dice == pytest.approx(expected) and 0 < decision.dice < 100


def test_weak_pixels_are_where_self_prediction_and_label_differ(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    decision = decide_cow(tiny_cow(), pair)
    label = pair.support.mask[0, 0].numpy() > 0
    assert decision.self_predicted is not None
    assert decision.missed.any() or decision.false.any()
    assert np.array_equal(decision.missed, label & ~decision.self_predicted)
    assert np.array_equal(decision.false, decision.self_predicted & ~label)


def test_hard_prototypes_come_from_weak_pixels(tmp_path: Path) -> None:
    decision = decide_cow(tiny_cow(), block_pairs(tmp_path)[0])
    for positions, weak, quota in (
        (decision.hard_foreground, decision.missed, 4),
        (decision.hard_background, decision.false, 6),
    ):
        assert len(positions) == min(quota, weak.sum())
        rows, columns = positions.astype(int).T
        assert np.array_equal(positions, positions.astype(int)) and weak[rows, columns].all()


def test_hard_prototypes_are_found_again_by_their_features() -> None:
    rows = torch.arange(9.0)[:, None].expand(-1, 2)
    miner = HardPrototypes(9, 4, 2)
    weak = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0]]).bool()
    kept, appended = rows[[0, 3]], rows[[4, 4]]
    found = _hard_positions(miner, torch.cat([kept, rows[[6, 1]], appended]), weak, rows)
    assert found.tolist() == [[0, 1], [2, 0]]
    assert not len(_hard_positions(miner, rows[:6], torch.zeros_like(weak), rows))
    mixed = HardPrototypes(9, 4, 2, "figure")
    assert not len(_hard_positions(mixed, rows[:6], weak, rows))


def test_without_self_prediction_nothing_is_weak(tmp_path: Path) -> None:
    decision = decide_cow(tiny_cow(self_prediction=False), block_pairs(tmp_path)[0])
    assert decision.self_predicted is None
    assert not decision.missed.any() and not decision.false.any()
    assert not len(decision.hard_foreground) and not len(decision.hard_background)


def test_the_label_of_the_query_does_not_reach_the_network(tmp_path: Path) -> None:
    network = tiny_cow().train()
    pair = block_pairs(tmp_path)[0]
    hidden = replace(pair.query, mask=torch.zeros_like(pair.query.mask))
    blind = decide_cow(network, replace(pair, query=hidden, truth=np.zeros_like(pair.truth)))
    for own, other in zip(maps(decide_cow(network, pair)), maps(blind), strict=True):
        assert np.array_equal(own, other)
    assert network.training and blind.dice == 0
