"""Draws a change of contrast as plain numbers; repaints a slice as another scanner might show it.

Shapes stay, intensities go: a network trained on such slices cannot lean on one contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsmis_components.transforms.warp import gaussian_blur

BODY_FRACTION = 0.1  # of the intensity range: darker pixels do not place the levels of the remap


@dataclass(frozen=True)
class ContrastParameters:
    """One change of contrast; the defaults change nothing."""

    # two or more new intensities, in [0, 1], for the darkest pixel and for knots spread over the
    # tissue, with straight lines between; need not rise; empty: no remapping
    levels: tuple[float, ...] = ()
    strength: float = 1.0  # share of the remapped image, the rest is the original; 0..1
    gamma: float = 1.0  # exponent as in SSL-ALPNet; 1: none
    # coefficients c[i][j] of x^i y^j, x and y in [-1, 1], row after row of a square table; exp of
    # the polynomial multiplies the image; empty: none
    bias: tuple[float, ...] = ()
    blur_sigma: float = 0.0  # pixels; 0: none
    noise_std: float = 0.0  # in standard deviations of the image
    noise_seed: int = 0


@dataclass(frozen=True)
class ContrastRanges:
    """What `draw_contrast` draws from; two numbers are the smallest and the largest."""

    num_levels: int = 7  # knots of the remap; 0: no remapping
    remap_probability: float = 0.8  # how often there is a remap at all
    rising_probability: float = 0.4  # how often its levels are sorted; else they come as drawn
    dark_background_probability: float = 0.8  # how often the darkest pixel (air) stays the darkest
    strength: tuple[float, float] = (0.5, 1.0)
    gamma: tuple[float, float] = (0.5, 1.5)
    bias: float = 0.3  # largest coefficient of the bias field's polynomial of third order
    blur_sigma: float = 0.5  # the largest
    noise_std: float = 0.1  # the largest


def draw_contrast(rng: np.random.Generator, ranges: ContrastRanges) -> ContrastParameters:
    """Parameters of one change of contrast, drawn from the ranges."""
    rng.uniform(size=16)  # of an option that is gone: a seed still draws what it drew
    bias = rng.uniform(-ranges.bias, ranges.bias, 16)
    bias[0] = 0.0  # a constant factor is lost in the normalisation
    return ContrastParameters(
        levels=_draw_levels(rng, ranges),
        strength=float(rng.uniform(*ranges.strength)),
        gamma=float(rng.uniform(*ranges.gamma)),
        bias=tuple(bias.tolist()) if ranges.bias else (),
        blur_sigma=float(rng.uniform(0, ranges.blur_sigma)),
        noise_std=float(rng.uniform(0, ranges.noise_std)),
        noise_seed=int(rng.integers(2**31)),
    )


def apply_contrast(image: Tensor, parameters: ContrastParameters) -> Tensor:
    """Image (C, H, W) with the change of contrast; the same arguments give the same bits.

    Mean and variance stay those of the image, which keeps a slice of a volume that was normalised
    as a whole at its level. Channels share one remap and one bias field. A constant image gives
    itself.
    """
    darkest = image.min()
    extent = image.max() - darkest
    if not extent > 0:
        return image.clone()
    share = (image - darkest) / extent  # in [0, 1] from here
    if parameters.levels:
        mixed = parameters.strength * _remap(share, parameters.levels)
        share = mixed + (1 - parameters.strength) * share
    if parameters.gamma != 1:
        share = gamma(share, parameters.gamma)
    if parameters.bias:
        share = share * _bias_field(share, parameters.bias)
    if parameters.blur_sigma > 0:
        taps = 2 * max(1, math.ceil(3 * parameters.blur_sigma)) + 1
        taps = min(taps, 2 * min(image.shape[1:]) - 1)
        share = gaussian_blur(share, parameters.blur_sigma, taps)
    result = _standardise(share)
    if parameters.noise_std > 0:
        generator = torch.Generator().manual_seed(parameters.noise_seed)
        noise = torch.randn(image.shape, generator=generator).to(result)
        result = _standardise(result + parameters.noise_std * noise)
    return result * image.std(correction=0) + image.mean()


def gamma(image: Tensor, exponent: float) -> Tensor:
    """SSL-ALPNet's gamma: range * ((x - min + 1e-5) / range)^exponent + min, any shape."""
    darkest = image.min()
    extent = image.max() - darkest
    if not extent > 0:
        return image.clone()
    return extent * ((image - darkest + 1e-5) / extent) ** exponent + darkest


def _draw_levels(rng: np.random.Generator, ranges: ContrastRanges) -> tuple[float, ...]:
    levels = rng.uniform(0, 1, ranges.num_levels)
    remap, rising, dark = rng.uniform(0, 1, 3)
    if ranges.num_levels == 0 or remap >= ranges.remap_probability:
        return ()
    if rising < ranges.rising_probability:
        levels = np.sort(levels)
    if dark < ranges.dark_background_probability:
        levels[0] = 0.0
    return tuple(levels.tolist())


def _remap(share: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Piecewise linear through (knot, level); knots: the minimum, then spread over the tissue.

    Air fills half of many slices; so that its noise makes no structure, it lies between the first
    two knots. The others lie half way between tissue quantiles, which reach every organ but cut a
    large one into noise, and even steps, which are smooth but lump the organs together.
    """
    sample = share.flatten()[:: max(1, share.numel() // 8192)]
    tissue = sample[sample > BODY_FRACTION]
    tissue = sample if tissue.numel() < 16 else tissue
    ranks = torch.linspace(0, 1, len(levels) - 1, dtype=share.dtype, device=share.device)
    quantiles = torch.quantile(tissue, ranks)
    even = quantiles[0] + (quantiles[-1] - quantiles[0]) * ranks
    knots = torch.cat((share.new_zeros(1), (quantiles + even) / 2))
    values = share.new_tensor(levels)
    upper = torch.bucketize(share, knots).clamp(1, len(levels) - 1)
    start, end = knots[upper - 1], knots[upper]
    position = ((share - start) / (end - start).clamp_min(1e-6)).clamp(0, 1)
    return values[upper - 1] + position * (values[upper] - values[upper - 1])


def _bias_field(image: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    height, width = image.shape[1:]
    order = math.isqrt(len(coefficients))
    table = image.new_tensor(coefficients).view(order, order)
    x, y = (
        torch.linspace(-1, 1, n, dtype=image.dtype, device=image.device) for n in (width, height)
    )
    powers = torch.arange(order, dtype=image.dtype, device=image.device)
    polynomial = (y[:, None] ** powers) @ table.T @ (x[:, None] ** powers).T  # (H, W)
    return torch.exp(polynomial)


def _standardise(image: Tensor) -> Tensor:
    return (image - image.mean()) / image.std(correction=0).clamp_min(1e-6)
