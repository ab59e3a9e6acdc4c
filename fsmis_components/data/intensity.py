"""Intensities: from a scanner's numbers to those that the network expects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import chunks, quantile, sample
from fsmis_components.data.volumes import Volume

_BIN = 20.0  # Hounsfield units
# what scanners and converters add to Hounsfield units so that no value is negative
_OFFSETS = (1024.0, 32768.0)
_MEASURED = {"mean": None, "std": None}  # entries of a stored rule: they are those of each scan


class Modality(NamedTuple):
    """What the intensities of a scan look like."""

    name: str  # "ct" where they are Hounsfield units, else "mr"
    offset: float = 0.0  # what was added to the Hounsfield units where they were stored


def modality_of(volume: Volume) -> Modality:
    """Tell MR from CT by the shares of voxels near air, fat and soft tissue.

    CT is known by many voxels as dark as lung and air, or by a peak below -80 HU (air, fat, or the
    lower end of a window to which the scan was clipped) beside soft tissue. Resampled MR has
    negative values too, but they grow fewer with the distance from zero and make no peak. CT with
    an offset is known by its air and its fat and soft tissue, 1,000 apart. CT on another scale
    (0 to 1, 0 to 255) passes for MR, which is brought to a common scale.
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
    least = {(-200, 200): 0.7, (-150, -50): 0.03, (0, 100): 0.2}  # all tissue, fat, soft tissue
    return all(((body > low) & (body < high)).mean() >= n for (low, high), n in least.items())


@dataclass(frozen=True)
class Normalisation:
    """The rule by which intensities are normalised, stored with the support.

    They are clipped, then the scan's mean is subtracted, and divided by its standard deviation.
    """

    modality: str  # "mr": the brightest voxels are clipped; "ct": a window in Hounsfield units
    clip_quantile: float = 0.995  # of "mr": share of the voxels that are not clipped (SSL-ALPNet)
    window: tuple[float, float] = (-125.0, 275.0)  # of "ct", Hounsfield units (SSL-ALPNet)

    def __post_init__(self) -> None:
        """Refuse a modality for which there is no rule."""
        if self.modality not in ("mr", "ct"):
            raise DataError(f"modality: expected auto, mr or ct, got {self.modality!r}.")

    def describe(self) -> str:
        """The modality as a person says it."""
        return {"mr": "MR", "ct": "CT in Hounsfield units"}[self.modality]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "window": list(self.window), **_MEASURED}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """The rule that `to_dict` described."""
        if any(values[name] is not None for name in _MEASURED):
            raise ValueError("mean and std are those of each scan")
        lower, upper = map(float, values["window"])
        rest = {name: value for name, value in values.items() if name not in _MEASURED}
        return cls(**{**rest, "window": (lower, upper)})


@dataclass(frozen=True)
class Normaliser:
    """A rule with its numbers for one volume, so that slabs are normalised independently."""

    lower: float  # darker voxels are set to it
    upper: float  # brighter voxels are set to it
    mean: float  # subtracted after clipping
    std: float  # divisor; 0 (a constant volume) gives 0 everywhere

    def __call__(self, image: Tensor) -> Tensor:
        """Normalise intensities of any shape; the input is not changed."""
        centred = image.clamp(self.lower, self.upper) - self.mean
        return centred / self.std if self.std > 0 else centred * 0.0


def resolve_modality(volume: Volume, modality: str = "auto") -> str:
    """Return "mr" or "ct": what is named, or with "auto" what `modality_of` tells.

    Another word is a `DataError`.
    """
    name = str(modality).strip().lower()
    return modality_of(volume).name if name == "auto" else Normalisation(name).modality


def intensity_warning(seen: Modality, normalisation: Normalisation) -> str:
    """A sentence where a scan is of another kind than the support's rule is for; or nothing."""
    if normalisation.modality == "ct" and seen.name == "mr":
        return (
            "The scan is taken as CT, as the support is, but holds no Hounsfield units (no air, "
            "fat and soft tissue where CT has them): MR, or CT on another scale; check the mask."
        )
    if normalisation.modality == "mr" and seen.name == "ct":
        return (
            "The scan looks like CT and is taken as MR, as the support is; check the mask, or "
            "build the support from CT."
        )
    return ""


def shown_range(volume: Volume, normalisation: Normalisation) -> tuple[float, float] | None:
    """Intensities between which CT is shown, as they are stored; None: MR has no such range."""
    if normalisation.modality != "ct":
        return None
    lower, upper = normalisation.window
    offset = modality_of(volume).offset
    return lower + offset, upper + offset


def fit_normaliser(volume: Volume, normalisation: Normalisation) -> Normaliser:
    """Measure on a volume the numbers that its normalisation needs.

    MR whose mean a mark for "no data" would spoil, and CT without a value in the window, are a
    `DataError`.
    """
    if window := shown_range(volume, normalisation):
        lower, upper = window
    else:
        lower, upper = -math.inf, quantile(volume.data, normalisation.clip_quantile)
        _check_fill(volume, upper)
    mean, std = _mean_and_std(volume, lower, upper)
    low, high = _extremes(volume)
    if std == 0 and low < high and normalisation.modality == "ct":
        raise DataError(
            f"{volume.title}: no voxel lies within the CT window of {normalisation.window[0]:g} to "
            f"{normalisation.window[1]:g}, so these are no Hounsfield units; convert the scan to "
            "them, or set --modality mr and rebuild the support."
        )
    return Normaliser(lower, upper, mean, std)


def _check_fill(volume: Volume, upper: float) -> None:
    """Refuse one value farther from all others than these lie apart: it would decide mean and std.

    A dark one always does, a bright one where it is more than the share that is clipped (above
    `upper`). Zero is what everybody writes outside the body, and harmless.
    """
    low, high = _extremes(volume)
    values = sample(volume.data)
    others = values[(values > low) & (values < high)]
    if not others.size or others.min() == others.max():  # two or three values: none is far off
        return
    first, last = np.quantile(others, [0.01, 0.99])
    if low != 0 and upper > first and first - low > upper - first:
        fill = low
    elif high != 0 and high == upper and high - last > last - first:
        fill = high
    else:
        return
    count = sum(np.count_nonzero(chunk == fill) for chunk in chunks(volume.data))
    raise DataError(
        f"{volume.title}: holds {fill:g} in {count} of its voxels, far from all other values: a "
        "mark for no data, which normalisation would count in; replace it by the darkest intensity "
        "(MR: 0) and save the file again."
    )


def _extremes(volume: Volume) -> tuple[float, float]:
    lows, highs = zip(*((float(v.min()), float(v.max())) for v in chunks(volume.data)), strict=True)
    return min(lows), max(highs)


def _mean_and_std(volume: Volume, lower: float, upper: float) -> tuple[float, float]:
    """Of the clipped voxels, in two passes: one pass of sums of squares would cancel."""

    def average(of: Callable[[np.ndarray], np.ndarray]) -> float:
        parts = (np.clip(chunk.astype(np.float64), lower, upper) for chunk in chunks(volume.data))
        return math.fsum(float(of(part).sum()) for part in parts) / math.prod(volume.shape)

    mean = average(lambda part: part)
    std = math.sqrt(average(lambda part: np.square(part - mean)))
    # rounding leaves a trace of variance in a constant volume; float32 resolves no less than this
    return mean, std if std > 1e-7 * abs(mean) else 0.0
