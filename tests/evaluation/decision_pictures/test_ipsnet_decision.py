from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pairs import benchmark_dice, block_pairs, tiny_ips

from fsmis_components.evaluation.decision_pictures.ipsnet_decision import IpsDecision, decide_ips


def maps(decision: IpsDecision) -> list[np.ndarray]:
    assert decision.own is not None and decision.peak_map is not None
    found = [decision.guidance, decision.mean_map, decision.peak_map, decision.intermediate]
    return [*found, decision.own.margin, decision.decided]


def test_maps_have_the_size_of_the_slice(tmp_path: Path) -> None:
    found = maps(decide_ips(tiny_ips(), block_pairs(tmp_path)[0]))
    assert all(each.shape == (24, 20) and np.ptp(each) > 0 for each in found)


def test_steps_follow_from_each_other(tmp_path: Path) -> None:
    decision = decide_ips(tiny_ips(), block_pairs(tmp_path)[0])
    _, mean, peak, intermediate, own, decided = maps(decision)
    # an untrained network blends both maps alike, and its decoder corrects nothing
    np.testing.assert_allclose(intermediate, (mean + peak) / 2, atol=1e-4)
    np.testing.assert_allclose(own, decided, atol=1e-4)
    assert np.abs(own - intermediate).max() > 0.01


def test_the_dice_is_that_of_the_benchmark(tmp_path: Path) -> None:
    pairs = block_pairs(tmp_path)
    network = tiny_ips()
    torch.nn.init.normal_(network.decision.decoder.paths[0].last.weight)
    for pair, expected in zip(pairs, benchmark_dice(tmp_path, network, pairs), strict=True):
        decision = decide_ips(network, pair)
        assert decision.dice == pytest.approx(expected) and 0 < decision.dice < 100


def test_confident_cells_are_those_of_the_first_mask(tmp_path: Path) -> None:
    network = tiny_ips(confidence=(0.55, 0.5))
    pair = block_pairs(tmp_path)[0]
    decision = decide_ips(network, pair)
    assert decision.own is not None
    with torch.inference_mode():
        network.eval()
        state = network.build_support(
            network.encode(pair.support.image), pair.support.mask[None], torch.ones(1, 1, 1) > 0
        )
        found = network.decide(network.encode(pair.query.image), state)
    sure = torch.sigmoid(found.intermediate[0, 0, 0])[:, :5].numpy() > 0.55  # 20 columns: 5 cells
    assert sure.any() and not sure.all()
    # each cell of the features is a square of 4 pixels
    assert np.array_equal(decision.own.foreground, sure.repeat(4, 0).repeat(4, 1))
    assert decision.own.num_cells[0] == sure.sum()
    assert decision.own.num_cells[1] == decision.own.background.sum() / 16


@pytest.mark.parametrize("ratio", [1000.0, 0.0])
def test_own_prototypes_that_are_not_trusted(tmp_path: Path, ratio: float) -> None:
    pair = block_pairs(tmp_path)[0]
    decision = decide_ips(tiny_ips(area_ratio=ratio), pair)
    assert decision.own is not None and decision.own.trusted == (ratio > 0)
    alone = np.allclose(decision.own.margin, decision.mean_map, atol=1e-4)
    assert alone == (not decision.own.trusted)


def test_parts_that_a_network_lacks(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    decision = decide_ips(tiny_ips(self_learning=False), pair)
    assert decision.own is None and decision.peak_map is not None
    np.testing.assert_allclose(decision.decided, decision.intermediate, atol=1e-5)
    assert decide_ips(tiny_ips(deep="none", interaction="mean"), pair).peak_map is None


def test_the_label_of_the_query_does_not_reach_the_network(tmp_path: Path) -> None:
    network = tiny_ips().train()
    pair = block_pairs(tmp_path)[0]
    hidden = replace(pair.query, mask=torch.zeros_like(pair.query.mask))
    blind = decide_ips(network, replace(pair, query=hidden, truth=np.zeros_like(pair.truth)))
    for own, other in zip(maps(decide_ips(network, pair)), maps(blind), strict=True):
        assert np.array_equal(own, other)
    assert network.training and blind.dice == 0
