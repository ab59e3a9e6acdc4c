"""MR or CT, told by the shape of a scan's histogram; no single voxel decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsmis_components.data.stored_array import sample
from fsmis_components.data.volumes import Volume

_BIN = 20.0  # Hounsfield units
# what scanners and converters add to Hounsfield units so that no value is negative
_OFFSETS = (1024.0, 32768.0)


@dataclass(frozen=True)
class Modality:
    """What the intensities of a scan look like.

    Attributes:
        name: "ct" where they are Hounsfield units, else "mr".
        offset: what was added to the Hounsfield units where they were stored.
    """

    name: str
    offset: float = 0.0


def modality_of(volume: Volume) -> Modality:
    """Tell MR from CT by the shares of voxels near air, fat and soft tissue.

    CT is known by many voxels as dark as lung and air, or by a peak below -80 HU (air, fat, or the
    lower end of a window to which the scan was clipped) beside soft tissue. Resampled MR has
    negative values too, but they grow fewer with the distance from zero and make no peak. CT with
    an offset is known by its air and its fat and soft tissue, 1,000 apart. CT on another scale
    (0 to 1, 0 to 255) holds no Hounsfield units and passes for MR, which is brought to a common
    scale.
    """
    values = sample(volume.data).astype(np.float64)
    if _is_hounsfield(values):
        return Modality("ct")
    for offset in _OFFSETS:
        if _is_shifted_hounsfield(values - offset):
            return Modality("ct", offset)
    return Modality("mr")


def _is_hounsfield(values: np.ndarray) -> bool:
    dark = values[(values > -1200) & (values < -200)]
    # where so much is that dark and nothing brighter than bone, it is lung and air; a padding is
    # one value only
    spread = np.count_nonzero(dark != np.median(dark)) if dark.size else 0
    if spread >= 0.2 * values.size and (values > 1500).mean() < 0.05:
        return True
    edges = np.arange(-1100.0, 1.0, _BIN)
    shares = np.histogram(values, edges)[0] / values.size
    cold = shares[edges[:-1] < -80].max()
    valley = shares[(edges[:-1] >= -80) & (edges[:-1] < -20)].min()
    between = ((values > -200) & (values < -20)).mean()  # fat and edges; empty in padded MR
    warm = values[values > 20]
    if cold < 0.005 or cold <= 1.2 * valley or between < 0.005 or not warm.size:
        return False
    return bool((warm <= 300).mean() >= 0.6)  # of other bright voxels, bone is the lesser part


def _is_shifted_hounsfield(values: np.ndarray) -> bool:
    """Stricter, as the values of MR begin at zero too."""
    air = ((values > -1100) & (values < -900)).mean()
    body = values[values > -500]
    if air < 0.05 or not body.size:
        return False
    narrow, fat, soft = (
        ((body > low) & (body < high)).mean() for low, high in ((-200, 200), (-150, -50), (0, 100))
    )
    return bool(narrow >= 0.7 and fat >= 0.03 and soft >= 0.2)
