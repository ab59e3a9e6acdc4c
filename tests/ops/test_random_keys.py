"""Random keys: a function of seed and number alone, and as even as random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.ops.random_keys import random_keys

MASK = 2**64 - 1


def mixed(bits: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def bits_of(keys: Tensor) -> Tensor:
    """The 63 bits of each key, lowest first, (count, 63) as float."""
    return ((keys[:, None] >> torch.arange(63)) & 1).float()


@pytest.mark.parametrize("seed", [0, 1, -7, 2**63 - 1, -(2**63)])
def test_values(seed: int, device: torch.device) -> None:
    steps = [(mixed(seed & MASK) + (i + 1) * 0x9E3779B97F4A7C15) & MASK for i in range(5)]
    expected = [mixed(step) & (2**63 - 1) for step in steps]
    assert random_keys(torch.tensor(seed, device=device), 5).tolist() == expected


def test_keys_do_not_depend_on_the_batch_around_them(device: torch.device) -> None:
    seeds = torch.tensor([[[5, 9], [0, 5]], [[2**62, 7], [1, 3]]], device=device)
    keys = random_keys(seeds, 33)
    assert keys.shape == (2, 2, 2, 33) and keys.dtype == torch.int64
    for place in [(0, 0, 1), (1, 0, 0), (1, 1, 1)]:
        assert torch.equal(random_keys(seeds[place], 17), keys[place][:17])
    assert torch.equal(random_keys(seeds.transpose(0, 2), 33), keys.transpose(0, 2))
    assert torch.equal(keys[0, 0, 0], keys[0, 1, 1])
    assert random_keys(seeds, 0).shape == (2, 2, 2, 0)


@pytest.mark.parametrize("seed", [0, 1, 123456789])
def test_keys_are_even_and_distinct(seed: int) -> None:
    count = 65536
    keys = random_keys(torch.tensor(seed), count)
    assert int(keys.min()) >= 0
    assert len(keys.unique()) == count
    # 5 standard deviations of a fair coin
    assert bool(((bits_of(keys).mean(0) - 0.5).abs() < 5 * 0.5 / count**0.5).all())
    for cell in (keys & 255, keys >> 55):  # low and high bits: 256 cells, 255 degrees of freedom
        observed = torch.bincount(cell, minlength=256)
        statistic = float((observed - count / 256).square().sum() / (count / 256))
        assert 255 - 5 * 510**0.5 < statistic < 255 + 5 * 510**0.5
    pair = (keys[:-1] >> 59) * 16 + (keys[1:] >> 59)  # a key says nothing of the next
    observed = torch.bincount(pair, minlength=256)
    assert float((observed - count / 256).square().sum() / (count / 256)) < 255 + 5 * 510**0.5


@pytest.mark.parametrize("step", [1, 2, 2**32, 0x9E3779B97F4A7C15 - 2**64])
def test_neighbouring_seeds_have_nothing_in_common(step: int) -> None:
    count = 4096
    keys = random_keys(torch.tensor([11, 11 + step]), count)
    first, second = bits_of(keys[0]) - 0.5, bits_of(keys[1]) - 0.5
    correlation = (first * second).mean(0) / 0.25
    assert bool((correlation.abs() < 5 / count**0.5).all())
    # nor the same keys one place further, as where the step is the generator's own
    assert not set(keys[0].tolist()) & set(keys[1].tolist())


def test_orders_are_fair() -> None:
    """Each of the 6 orders of 3 things comes up as often as the others."""
    orders = random_keys(torch.arange(6000), 3).argsort(-1)
    counts = torch.bincount(orders[:, 0] * 3 + orders[:, 1], minlength=9)
    found = counts[counts > 0]
    assert len(found) == 6
    assert float((found - 1000).square().sum() / 1000) < 25  # 5 degrees of freedom, p 1e-4


def test_scripts() -> None:
    seeds = torch.tensor([[3, -4], [2**60, 0]])
    assert torch.equal(torch.jit.script(random_keys)(seeds, 65), random_keys(seeds, 65))


def test_rejects() -> None:
    with pytest.raises(ValueError, match=r"expected int64 seeds .* got seeds \(2\) of torch.int32"):
        random_keys(torch.zeros(2, dtype=torch.int32), 3)
    with pytest.raises(ValueError, match="and count -1"):
        random_keys(torch.tensor(0), -1)
