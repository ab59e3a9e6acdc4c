"""Intensities: from a scanner's numbers to those that the network expects."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.stored_array import quantile, slabs
from fsmis_components.data.volumes import Volume

MODALITIES = ("mr", "ct")
_AIR = -200.0  # Hounsfield units; no fat is darker, and magnitude MR has no such values


@dataclass(frozen=True)
class Normalisation:
    """The rule by which intensities are normalised, stored with the support.

    Attributes:
        modality: "mr": the brightest voxels are clipped; "ct": a window in Hounsfield units. Then
            the mean is subtracted and the result divided by the standard deviation.
        clip_quantile: "mr" only: brighter voxels than this share are clipped (SSL-ALPNet: 0.995).
        window: "ct" only, Hounsfield units (SSL-ALPNet: -125 to 275).
        mean: fixed mean after clipping; None: that of each volume.
        std: fixed standard deviation after clipping; None: that of each volume.
    """

    modality: str
    clip_quantile: float = 0.995
    window: tuple[float, float] = (-125.0, 275.0)
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        """Refuse a modality for which there is no rule."""
        if self.modality not in MODALITIES:
            raise DataError(f"modality: expected auto, mr or ct, got {self.modality!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "window": list(self.window)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """The rule that `to_dict` described."""
        lower, upper = values["window"]
        return cls(**{**values, "window": (float(lower), float(upper))})


@dataclass(frozen=True)
class Normaliser:
    """A rule with its numbers for one volume, so that slabs are normalised independently.

    Attributes:
        lower: darker voxels are set to it.
        upper: brighter voxels are set to it.
        mean: subtracted after clipping.
        std: divisor; 0 (a constant volume) gives 0 everywhere.
    """

    lower: float
    upper: float
    mean: float
    std: float

    def __call__(self, image: Tensor) -> Tensor:
        """Normalise intensities of any shape; the input is not changed."""
        centred = image.clamp(self.lower, self.upper) - self.mean
        return centred / self.std if self.std > 0 else centred * 0.0


def resolve_modality(volume: Volume, modality: str = "auto") -> str:
    """Tell MR from CT.

    Args:
        volume: looked at where `modality` is "auto": a scan that reaches -200 or below is CT in
            Hounsfield units (air), any other is MR. A CT stored with an offset, so that it starts
            at 0, must be named.
        modality: "auto", "mr" or "ct".

    Returns:
        "mr" or "ct".

    Raises:
        DataError: another word.
    """
    name = str(modality).strip().lower()
    if name != "auto":
        return Normalisation(name).modality
    return "ct" if min(float(slab.min()) for slab in slabs(volume.data)) <= _AIR else "mr"


def fit_normaliser(volume: Volume, normalisation: Normalisation) -> Normaliser:
    """Measure on a volume the numbers that its normalisation needs.

    Args:
        volume: a scan; its voxels in storage order, so that the result does not depend on the
            working resolution.
        normalisation: the rule.

    Returns:
        A callable on tensors of any shape.
    """
    if normalisation.modality == "ct":
        lower, upper = normalisation.window
    else:
        lower, upper = -math.inf, quantile(volume.data, normalisation.clip_quantile)
    mean, std = normalisation.mean, normalisation.std
    if mean is None or std is None:
        own_mean, own_std = _mean_and_std(volume, lower, upper)
        mean = own_mean if mean is None else mean
        std = own_std if std is None else std
    return Normaliser(float(lower), float(upper), float(mean), float(std))


def _mean_and_std(volume: Volume, lower: float, upper: float) -> tuple[float, float]:
    """Of the clipped voxels, in two passes: one pass of sums of squares would cancel."""
    count = float(np.prod(volume.shape))
    clipped = (np.clip(slab.astype(np.float64), lower, upper) for slab in slabs(volume.data))
    mean = math.fsum(float(slab.sum()) for slab in clipped) / count
    clipped = (np.clip(slab.astype(np.float64), lower, upper) for slab in slabs(volume.data))
    variance = math.fsum(float(np.square(slab - mean).sum()) for slab in clipped) / count
    std = math.sqrt(variance)
    # rounding leaves a trace of variance in a constant volume; float32 resolves no less than this
    return mean, std if std > 1e-7 * abs(mean) else 0.0
