"""Blurs maps with a Gaussian kernel, without a loop over the maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def gaussian_blur(maps: Tensor, sigma: float, kernel_size: int) -> Tensor:
    """Separable Gaussian blur with reflected borders.

    Args:
        maps: (C, H, W), both sides above `kernel_size // 2`.
        sigma: pixels, above 0.
        kernel_size: odd number of taps.

    Returns:
        (C, H, W), same type and device.
    """
    radius = kernel_size // 2
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(maps[:, None], (radius, radius, radius, radius), mode="reflect")
    along_rows = F.conv2d(padded, kernel)
    return F.conv2d(along_rows, kernel.transpose(2, 3))[:, 0]
