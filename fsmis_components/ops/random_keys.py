"""Random keys by counting: repeatable draws that need no random number generator."""

import torch
from torch import Tensor


def random_keys(seeds: Tensor, count: int) -> Tensor:
    """Return ``count`` random integers in [0, 2**63) for each seed, int64 (*batch, count).

    Key i of a seed is a hash of the seed and of i: it depends neither on the other seeds of the
    batch nor on the device, and where ``count`` is larger the first keys stay the same. The hash
    is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) begun at the mixed seed, so that
    neighbouring seeds have nothing in common; ``argsort`` of the keys is a random order.

    Example:
        >>> random_keys(torch.tensor([3, 4]), 5).argsort(dim=1, stable=True)
        tensor([[4, 0, 3, 2, 1],
                [0, 4, 2, 3, 1]])
    """
    # 2**64 over the golden ratio; as all constants here a 64-bit pattern written as signed number
    increment = -7046029254386353131
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=seeds.device) * increment
    return _mix(_mix(seeds).unsqueeze(-1) + steps) & 0x7FFFFFFFFFFFFFFF


def _mix(bits: Tensor) -> Tensor:
    """Map 64-bit patterns one to one so that each bit depends on all; int64 products wrap."""
    bits = (bits ^ _shifted_right(bits, 30)) * -4658895280553007687
    bits = (bits ^ _shifted_right(bits, 27)) * -7723592293110705685
    return bits ^ _shifted_right(bits, 31)


def _shifted_right(bits: Tensor, places: int) -> Tensor:
    """Shift zeros in from the left, where ``>>`` of a signed number repeats its sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
