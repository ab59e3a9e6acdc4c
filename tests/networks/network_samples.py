"""An encoder that is quick and plain, and episodes for networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsmis_components.networks import CoW, EncoderLevels


class StubEncoder(nn.Module):
    """Channels made of the image by fixed weights, at stride 8 as in SSL-ALPNet's paper."""

    stride = 8
    pad_multiple = 8

    strides = (8, 8, 8, 8)

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.out_channels = channels
        self.channels = (channels,) * 4
        self.project = nn.Conv2d(1, channels, 8, 8)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, image: Tensor) -> EncoderLevels:
        features = self.norm(self.project(image))
        return EncoderLevels(features, features, features, features)


def small_cow(encoder: nn.Module | str, **changes: object) -> CoW:
    """A CoW of few prototypes and channels."""
    settings = {
        "num_prototypes": (12, 16),
        "num_hard": (4, 6),
        "prototype_grid": 16,
        "predictor_width": 8,
        "fusion_widths": (6, 8),
    }
    return CoW(encoder, **(settings | changes))


def disc(size: int, centre: tuple[float, float], radius: float) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((y - centre[0]) ** 2 + (x - centre[1]) ** 2) < radius**2).float()


def episode(b: int = 2, s: int = 2, n: int = 3, size: int = 64) -> dict[str, Tensor]:
    torch.manual_seed(3)
    discs = [disc(size, (20 + 9 * i, 20 + 7 * i), 18) for i in range(n)]
    masks = torch.stack(discs)
    return {
        "image": torch.randn(b, 1, size, size),
        "support_image": torch.randn(b, s, 1, size, size),
        "support_label": masks.expand(b, s, n, size, size).clone(),
        "label": masks.expand(b, n, size, size).clone(),
    }
