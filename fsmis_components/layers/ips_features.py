"""Features of IPSNet: four levels of a batch of slices."""

from typing import NamedTuple, Tuple

from torch import Tensor


class IPSFeatures(NamedTuple):
    """Features of a batch of slices at four levels, and the size of the images before padding."""

    edge: Tensor
    low: Tensor
    mid: Tensor
    high: Tensor
    image_size: Tuple[int, int]


def take_slices(features: IPSFeatures, first: int, end: int) -> IPSFeatures:
    """Return the features of the slices from first to end - 1."""
    return IPSFeatures(
        features.edge[first:end],
        features.low[first:end],
        features.mid[first:end],
        features.high[first:end],
        features.image_size,
    )
