"""HPG: random draws that can be checked, hard prototypes, and small masks."""

from __future__ import annotations

import torch
from torch import Tensor

from fsmis_components.layers.hard_prototypes import HardPrototypes, fill


def one_mask(*positions: int, length: int = 16) -> Tensor:
    mask = torch.zeros(1, 1, length, dtype=torch.bool)
    mask[..., list(positions)] = True
    return mask


SEED = torch.tensor([[7]])


def test_filling_copies_the_mask_wholly_before_it_repeats() -> None:
    source = fill(one_mask(0, 1, 2, 3, 4), SEED)[0, 0, 5:]  # 11 places for 5 vectors
    counts = torch.bincount(source, minlength=5)
    assert sorted(counts.tolist()) == [2, 2, 2, 2, 3]
    enough = fill(one_mask(*range(9)), SEED)[0, 0, 9:]
    assert len(set(enough.tolist())) == 7  # 7 places for 9 vectors: none is used twice


def layer(**changes: object) -> HardPrototypes:
    torch.manual_seed(0)
    settings = {"num_positions": 16, "num_prototypes": 6, "num_hard": 2} | changes
    return HardPrototypes(**settings).eval()


def features() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 16, 4)


def test_hard_prototypes_are_features_of_weak_pixels() -> None:
    mask, weak = one_mask(*range(8)), one_mask(2, 5)
    found = layer()(features(), mask, weak, SEED)[0, 0]
    assert found.shape == (6, 4)
    assert {tuple(row) for row in found[4:].tolist()} == {
        tuple(row) for row in features()[0, [2, 5]].tolist()
    }
    normal = layer()(features(), mask, one_mask(), SEED)[0, 0]
    kept = {tuple(row) for row in normal.tolist()}
    assert all(tuple(row) in kept for row in found[:4].tolist())  # four of the six, in any order


def test_layers_by_hand() -> None:
    """One feature everywhere: the first layer sums its weights, the second mixes the sums."""
    net = layer()
    feature = torch.tensor([1.0, -2.0, 0.5, 3.0])
    found = net(feature.expand(1, 16, 4), one_mask(3), one_mask(), SEED)[0, 0]
    hidden = net.first.weight.sum(1)[:, None] * feature + net.first.bias[:, None]
    expected = net.second.weight @ hidden + net.second.bias[:, None]
    torch.testing.assert_close(found, expected)


def test_guided_init_begins_with_means_of_cells() -> None:
    net = layer(num_prototypes=4, guided_init=True)
    values = features()
    found = net(values, one_mask(*range(16)), one_mask(), SEED)[0, 0]
    square = values[0].reshape(4, 4, 4)
    expected = torch.stack(
        [square[i : i + 2, j : j + 2].mean((0, 1)) for i in (0, 2) for j in (0, 2)]
    )
    torch.testing.assert_close(found, expected)
