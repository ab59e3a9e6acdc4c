"""Random keys: a function of seed and number alone."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.ops.random_keys import random_keys

MASK = 2**64 - 1


def mixed(bits: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


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
