"""From a labelled slice to the two prototype sets of each structure: SSP, HPG and the edges."""

from typing import NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.hard_prototypes import HardPrototypes
from fsmis_components.layers.resize import pooling_weights, upsample_corners
from fsmis_components.layers.self_prediction import SelfPrediction
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.random_keys import random_keys

APPENDED = 2  # the mean and the edge prototype, at the end of each set
EDGE = 2  # pixels: two erosions or dilations by a 3x3 square (GMRD, TMI 2024, and CoW)


class PrototypeSets(NamedTuple):
    """What one slice tells about each structure.

    Attributes:
        foreground: (B, N, P_f, C), the last two the mean and the inner edge.
        background: (B, N, P_b, C), the last two the mean and the outer edge.
        predicted: self-predicted probability at the image's size, (B, N, H, W).
        weak_foreground: foreground that is predicted as background, (B, N, grid, grid) bool.
        weak_background: the reverse.
    """

    foreground: Tensor
    background: Tensor
    predicted: Tensor
    weak_foreground: Tensor
    weak_background: Tensor


class PrototypeMiner(nn.Module):
    """Segment a slice by its own mean prototype, then mine prototypes where that fails.

    CoW (Jiang & Zhang, IJCAI 2025): SSP and HPG. Means under masks are those of features upsampled
    to the image's size, as in the released code. Prototypes are mined on a square grid; the paper's
    is the image, 256 x 256, other image sizes are resized to the grid.

    Args:
        channels: C of the features.
        num_prototypes: foreground and background; 100 and 600 in the paper, without the two that
            are appended.
        num_hard: 50 and 100 in the paper.
        grid: side of the square; 256 in the paper.
        predictor_width: channels of the self-prediction decoder; 512 in the paper.
        self_prediction: False leaves it out, and with it the hard prototypes.
        hpg: False: only the mean and the edge prototype.
        guided_init: see :class:`HardPrototypes`.
    """

    def __init__(
        self,
        channels: int,
        num_prototypes: Tuple[int, int] = (100, 600),
        num_hard: Tuple[int, int] = (50, 100),
        grid: int = 256,
        predictor_width: int = 512,
        self_prediction: bool = True,
        hpg: bool = True,
        guided_init: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.hpg = hpg
        self.predictor = SelfPrediction(channels, predictor_width) if self_prediction else None
        made = [
            HardPrototypes(grid * grid, number, hard, guided_init=guided_init) if hpg else None
            for number, hard in zip(num_prototypes, num_hard, strict=True)
        ]
        self.foreground, self.background = made
        self.set_sizes = [APPENDED + (number if hpg else 0) for number in num_prototypes]

    def forward(
        self, features: Tensor, mask: Tensor, inside: Tensor, seeds: Tensor
    ) -> PrototypeSets:
        """Return the prototype sets, float32.

        Args:
            features: of the slice, (B, C, h, w).
            mask: of each structure, (B, N, H, W) in [0, 1].
            inside: 1 on the slice, 0 on what was padded, (B, 1, H, W).
            seeds: of the random draws, int64 (B, N).
        """
        # autocast would take sums over whole slices in half precision
        with torch.autocast(features.device.type, enabled=False):
            mean = self._mean(features, mask)
        if self.predictor is None:
            score = torch.zeros_like(mask[:, :, :1, :1])
        else:
            score = self.predictor(features, mean)
        with torch.autocast(features.device.type, enabled=False):
            return self._mine(features, mask, inside, seeds, mean, score)

    def _mean(self, features: Tensor, mask: Tensor) -> Tensor:
        """Average the upsampled features under masks (B, N, H, W): (B, N, C)."""
        size = (features.shape[2], features.shape[3])
        weights = pooling_weights(to_compute_dtype(mask), size)
        return masked_average_pool(to_compute_dtype(features), weights)

    def _mine(
        self,
        features: Tensor,
        mask: Tensor,
        inside: Tensor,
        seeds: Tensor,
        mean: Tensor,
        score: Tensor,
    ) -> PrototypeSets:
        rest = inside - mask
        inner, outer = edge_masks(mask)
        others = torch.cat([rest, inner, outer * inside], 1)
        background_mean, inner_mean, outer_mean = self._mean(features, others).chunk(3, 1)
        foreground = torch.stack([mean, inner_mean], 2)
        background = torch.stack([background_mean, outer_mean], 2)

        predicted = self._activate(score, (mask.shape[2], mask.shape[3]))
        square = (self.grid, self.grid)
        found = self._activate(score, square) > 0.5
        on_grid = _on_grid(mask, square)
        off_grid = _on_grid(inside, square) & torch.logical_not(on_grid)
        if self.predictor is None:
            weak_foreground = torch.zeros_like(on_grid)
            weak_background = torch.zeros_like(on_grid)
        else:
            weak_foreground = on_grid & torch.logical_not(found)
            weak_background = off_grid & found
        if self.foreground is not None and self.background is not None:
            rows = upsample_corners(to_compute_dtype(features), square).flatten(2).transpose(1, 2)
            streams = random_keys(seeds, 2)
            mined = self.foreground(
                rows, on_grid.flatten(2), weak_foreground.flatten(2), streams[..., 0]
            )
            foreground = torch.cat([mined, foreground], 2)
            mined = self.background(
                rows, off_grid.flatten(2), weak_background.flatten(2), streams[..., 1]
            )
            background = torch.cat([mined, background], 2)
        return PrototypeSets(foreground, background, predicted, weak_foreground, weak_background)

    def _activate(self, score: Tensor, size: Tuple[int, int]) -> Tensor:
        # the released code has no sigmoid, and clamps
        return torch.sigmoid(upsample_corners(to_compute_dtype(score), size))


def _on_grid(mask: Tensor, square: Tuple[int, int]) -> Tensor:
    """Return where a mask covers half of a grid cell, or, if nowhere, where it covers most."""
    share = F.adaptive_avg_pool2d(to_compute_dtype(mask), square)
    most = share.amax((2, 3), keepdim=True)
    return (share >= most.clamp_max(0.5)) & (share > 0)


def edge_masks(mask: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the inner and the outer edge of masks (B, N, H, W) in [0, 1].

    The mask minus itself eroded, and itself dilated minus the mask. The image's border is no edge.
    """
    return mask + _dilate(-mask), _dilate(mask) - mask


def _dilate(mask: Tensor, radius: int = EDGE) -> Tensor:
    """Return the maximum over a square, rows and columns apart: cheaper than a max-pool on CPU."""
    h, w = mask.shape[-2], mask.shape[-1]
    # repeating the last row and column adds no new value to a square that reaches over the border
    padded = F.pad(mask, [radius, radius, radius, radius], mode="replicate")
    rows = padded.narrow(-2, 0, h)
    for i in range(1, 2 * radius + 1):
        rows = torch.maximum(rows, padded.narrow(-2, i, h))
    dilated = rows.narrow(-1, 0, w)
    for i in range(1, 2 * radius + 1):
        dilated = torch.maximum(dilated, rows.narrow(-1, i, w))
    return dilated
