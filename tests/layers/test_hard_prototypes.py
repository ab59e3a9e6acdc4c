"""HPG: random draws that can be checked, hard prototypes, and small masks."""

from __future__ import annotations

import torch
from torch import Tensor

from fsmis_components.layers.hard_prototypes import HardPrototypes, draw, fill


def one_mask(*positions: int, length: int = 16) -> Tensor:
    mask = torch.zeros(1, 1, length, dtype=torch.bool)
    mask[..., list(positions)] = True
    return mask


SEED = torch.tensor([[7]])


def test_filled_square_holds_vectors_of_the_mask_only() -> None:
    """Acceptance check 3: R_f contains only vectors that occur on foreground pixels."""
    mask = one_mask(3, 5, 6)
    source = fill(mask, SEED)[0, 0]
    assert set(source.tolist()) == {3, 5, 6}
    assert source[[3, 5, 6]].tolist() == [3, 5, 6]  # the mask keeps its own


def test_filling_copies_the_mask_wholly_before_it_repeats() -> None:
    source = fill(one_mask(0, 1, 2, 3, 4), SEED)[0, 0, 5:]  # 11 places for 5 vectors
    counts = torch.bincount(source, minlength=5)
    assert sorted(counts.tolist()) == [2, 2, 2, 2, 3]
    enough = fill(one_mask(*range(9)), SEED)[0, 0, 9:]
    assert len(set(enough.tolist())) == 7  # 7 places for 9 vectors: none is used twice


def test_draws_follow_the_seed_and_nothing_else() -> None:
    mask = one_mask(*range(1, 12))
    alone = draw(mask, SEED, 6)
    beside = draw(torch.cat([one_mask(2), mask], 1), torch.tensor([[1, 7]]), 6)
    assert torch.equal(alone[0, 0], beside[0, 1])
    assert not torch.equal(alone, draw(mask, SEED + 1, 6))
    assert len(set(alone.flatten().tolist())) == 6
    few = draw(one_mask(4), SEED, 3)
    assert few.flatten().tolist() == [4, 4, 4]


def test_draws_are_uniform() -> None:
    seeds = torch.arange(4000).reshape(1, 4000)
    drawn = draw(one_mask(1, 4, 9, 13).expand(1, 4000, 16), seeds, 1).flatten()
    shares = torch.bincount(drawn, minlength=16)[[1, 4, 9, 13]] / 4000
    assert (shares - 0.25).abs().max() < 0.03


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


def test_without_weak_pixels_the_quota_is_not_used() -> None:
    """Acceptance check 2, first half; weak pixels outside the mask are no weak pixels."""
    mask = one_mask(*range(8))
    plain = layer()(features(), mask, one_mask(), SEED)
    assert torch.equal(plain, layer()(features(), mask, one_mask(12), SEED))


def test_layers_by_hand() -> None:
    """One feature everywhere: the first layer sums its weights, the second mixes the sums."""
    net = layer()
    feature = torch.tensor([1.0, -2.0, 0.5, 3.0])
    found = net(feature.expand(1, 16, 4), one_mask(3), one_mask(), SEED)[0, 0]
    hidden = net.first.weight.sum(1)[:, None] * feature + net.first.bias[:, None]
    expected = net.second.weight @ hidden + net.second.bias[:, None]
    torch.testing.assert_close(found, expected)


def test_one_pixel_and_no_pixel() -> None:
    """A9: a mask of one pixel works, an empty one gives zero prototypes; gradients are finite."""
    values = features().requires_grad_()
    net = layer()
    one = net(values, one_mask(3), one_mask(3), SEED)
    assert one.isfinite().all() and bool(one.any())
    none = net(values, one_mask(), one_mask(), SEED)
    assert not none.any()
    (one.sum() + none.sum()).backward()
    assert values.grad is not None and bool(values.grad.isfinite().all())


def test_guided_init_begins_with_means_of_cells() -> None:
    net = layer(num_prototypes=4, guided_init=True)
    values = features()
    found = net(values, one_mask(*range(16)), one_mask(), SEED)[0, 0]
    square = values[0].reshape(4, 4, 4)
    expected = torch.stack(
        [square[i : i + 2, j : j + 2].mean((0, 1)) for i in (0, 2) for j in (0, 2)]
    )
    torch.testing.assert_close(found, expected)
