"""Draws a geometric transform as plain numbers; bends an image with its masks accordingly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

ELASTIC_KERNEL = 21  # taps of the elastic field's Gaussian, SSL-ALPNet


@dataclass(frozen=True)
class WarpParameters:
    """One transform of a slice; what it does to the content, x to the right and y downwards.

    Composed in SSL-ALPNet's order: rotate, translate, shear, zoom, then bend elastically.
    """

    rotation: float = 0.0  # degrees about the centre, counterclockwise on the screen
    translation: tuple[float, float] = (0.0, 0.0)  # (x, y) in pixels
    shear: float = 0.0  # degrees; a row moves to the right in proportion to its y
    # the row that shear leaves in place goes through the centre or, as in the released code, the
    # origin (top left), where shear also shifts the slice
    shear_about: Literal["centre", "origin"] = "centre"
    zoom: float = 1.0  # above 1 enlarges, about the centre
    elastic_alpha: float = 0.0  # strength of the displacement (pixels before blurring); 0: none
    elastic_sigma: float = 5.0  # Gaussian blur of the displacement, in pixels
    elastic_seed: int = 0  # of the displacement's noise


@dataclass(frozen=True)
class WarpRanges:
    """What `draw_warp` draws from, uniformly; by default SSL-ALPNet's released set (`sabs_aug`).

    Rotation (degrees), translation (pixels) and shear (degrees) are drawn within +- the value, zoom
    between the two; the others are handed on.
    """

    rotation: float = 5.0
    translation: float = 5.0
    shear: float = 5.0
    zoom: tuple[float, float] = (0.9, 1.2)
    elastic_alpha: float = 10.0
    elastic_sigma: float = 5.0
    shear_about: Literal["centre", "origin"] = "origin"


def draw_warp(rng: np.random.Generator, ranges: WarpRanges) -> WarpParameters:
    """Parameters of one transform, drawn from the ranges."""

    def within(limit: float) -> float:
        return float(rng.uniform(-limit, limit))

    return WarpParameters(
        rotation=within(ranges.rotation),
        translation=(within(ranges.translation), within(ranges.translation)),
        shear=within(ranges.shear),
        shear_about=ranges.shear_about,
        zoom=float(rng.uniform(*ranges.zoom)),
        elastic_alpha=ranges.elastic_alpha,
        elastic_sigma=ranges.elastic_sigma,
        elastic_seed=int(rng.integers(2**31)),
    )


def apply_warp(
    image: Tensor,
    masks: Tensor,
    parameters: WarpParameters,
    padding: Literal["zeros", "minimum"] = "zeros",
) -> tuple[Tensor, Tensor]:
    """Image (C, H, W) and masks (N, H, W) in [0, 1] bent by the same transform, linearly.

    Both come back in their own types; masks hold 0 and 1 only (>= 0.5). Outside its frame the image
    is padded by 0 (the paper's; mean intensity of z-normalised slices) or its darkest value, masks
    by 0. The same parameters give the same bits on the same device.
    """
    grid = _sampling_grid(image, parameters)
    fill = image.min() if padding == "minimum" else image.new_zeros(())
    warped = _sample(image - fill, grid) + fill
    return warped, (_sample(masks.to(image.dtype), grid) >= 0.5).to(masks.dtype)


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(maps[None], grid, align_corners=False)[0]


def _sampling_grid(image: Tensor, parameters: WarpParameters) -> Tensor:
    """Where each output pixel is read: (1, H, W, 2) in grid_sample's half-pixel coordinates."""
    height, width = image.shape[1:]
    inverse = torch.linalg.inv(_forward_matrix(parameters, height, width)).to(image)
    y = torch.arange(height, dtype=image.dtype, device=image.device)
    x = torch.arange(width, dtype=image.dtype, device=image.device)
    # positions (2, H, W): x and y in pixels, in the output
    position = torch.stack((x.expand(height, width), y[:, None].expand(height, width)))
    if parameters.elastic_alpha != 0:
        position = position + _displacement(image, parameters)
    source = torch.einsum("ij,jhw->hwi", inverse[:2, :2], position) + inverse[:2, 2]
    return ((2 * source + 1) / image.new_tensor([width, height]) - 1)[None]


def _displacement(image: Tensor, parameters: WarpParameters) -> Tensor:
    """Blurred uniform noise (2, H, W) in pixels, drawn on the CPU: the same on every device."""
    height, width = image.shape[1:]
    generator = torch.Generator().manual_seed(parameters.elastic_seed)
    noise = torch.rand((2, height, width), generator=generator) * 2 - 1
    # a picture smaller than the kernel cannot be reflected over its whole radius
    kernel_size = min(ELASTIC_KERNEL, 2 * min(height, width) - 1)
    blurred = gaussian_blur(noise, parameters.elastic_sigma, kernel_size)
    return (parameters.elastic_alpha * blurred).to(image)


def _forward_matrix(parameters: WarpParameters, height: int, width: int) -> Tensor:
    """3x3 in float64: pixel position of the content before -> after."""
    centre = ((width - 1) / 2, (height - 1) / 2)
    # y points down: counterclockwise on the screen is clockwise in these coordinates
    angle = -math.radians(parameters.rotation)
    cosine, sine = math.cos(angle), math.sin(angle)
    rotate = _about([[cosine, -sine], [sine, cosine]], centre)
    translate = torch.eye(3, dtype=torch.float64)
    translate[:2, 2] = torch.tensor(parameters.translation, dtype=torch.float64)
    still = centre if parameters.shear_about == "centre" else (0.0, 0.0)
    shear = _about([[1.0, math.tan(math.radians(parameters.shear))], [0.0, 1.0]], still)
    zoom = _about([[parameters.zoom, 0.0], [0.0, parameters.zoom]], centre)
    return zoom @ shear @ translate @ rotate


def _about(linear: list[list[float]], still: tuple[float, float]) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor(linear, dtype=torch.float64)
    fixed = torch.tensor(still, dtype=torch.float64)
    matrix[:2, 2] = fixed - matrix[:2, :2] @ fixed
    return matrix


def gaussian_blur(maps: Tensor, sigma: float, kernel_size: int) -> Tensor:
    """Separable Gaussian blur of maps (C, H, W) with reflected borders, sigma in pixels.

    The kernel has an odd number of taps; both sides of the maps are longer than half of it.
    """
    radius = kernel_size // 2
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="reflect")
    along_rows = F.conv2d(padded, kernel)
    return F.conv2d(along_rows, kernel.transpose(2, 3))[:, 0]
