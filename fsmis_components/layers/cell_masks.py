"""Masks on the cells of a feature map: shares, which cells stand for a class, their prototypes.

Peak prototypes are IPS-style, reconstructed from the abstract of Song et al., Artif. Intell. Med.
2025, which says only that they carry "the greatest semantic information": the strongest evidence
for a class, where a mean prototype is the average. Cells are chosen without gradient; it flows into
the values chosen, one cell of equal ones.
"""

import math
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import to_compute_dtype


def cell_shares(masks: Tensor, size: Tuple[int, int], stride: int) -> Tensor:
    """Return the share of each cell that masks fill, float32 (B, N, h, w).

    Args:
        masks: (B, N, H, W) in [0, 1]; what lies below and at the right of them is padding.
        size: h and w of the feature map.
        stride: side of a cell in pixels.
    """
    bottom, right = size[0] * stride - masks.shape[-2], size[1] * stride - masks.shape[-1]
    return F.avg_pool2d(F.pad(masks.to(torch.float32), [0, right, 0, bottom]), stride)


def cells_inside(
    image_size: Tuple[int, int], size: Tuple[int, int], stride: int, device: torch.device
) -> Tensor:
    """Return which cells hold a pixel of the image, and not padding alone, bool (1, h, w)."""
    rows = torch.arange(size[0], device=device) * stride < image_size[0]
    columns = torch.arange(size[1], device=device) * stride < image_size[1]
    return (rows[:, None] & columns).unsqueeze(0)


def chosen_cells(shares: Tensor) -> Tensor:
    """Return the cells (..., h, w) more than half filled; where there are none, all touched."""
    half = shares > 0.5
    none = torch.logical_not(half.flatten(-2).any(-1))[..., None, None]
    return half | (none & (shares > 0))


def class_means(features: Tensor, foreground: Tensor, inside: Tensor) -> Tensor:
    """Return the mean prototypes of background and foreground, (B, N, 2, C).

    Foreground is the share of each cell, (B, N, h, w); inside, (1, 1, h, w), what the image fills.
    """
    front = masked_average_pool(features, foreground)
    return torch.stack([masked_average_pool(features, inside - foreground), front], 2)


def confident_cells(probability: Tensor, inside: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the cells that are surely foreground, and surely background, bool (B, Q, h, w) each.

    Where no cell exceeds a threshold, the most probable cells. SSP then takes the best 12; small
    organs have fewer, so it is a share of all cells here. Inside, bool (1, h, w), is no padding.
    """
    probability = probability.detach().float()
    # the thresholds of SSP (Fan et al., ECCV 2022)
    return _above(probability, 0.7, inside), _above(1 - probability, 0.6, inside)


def _above(probability: Tensor, threshold: float, inside: Tensor) -> Tensor:
    known = torch.where(inside, probability, -1.0).flatten(-2)  # (B, Q, h * w)
    count = min(max(4, math.ceil(0.002 * known.shape[-1])), known.shape[-1])
    least = known.topk(count, dim=-1).values[..., -1:].clamp_min(0)
    sure = known > threshold
    # as torch.where(some, sure, known >= least), which onnxruntime has not for bools
    some = sure.any(-1, keepdim=True)
    sure = sure | (torch.logical_not(some) & (known >= least))
    return sure.reshape(probability.shape)


def channel_maxima(features: Tensor, cells: Tensor) -> Tensor:
    """Return the maximum of each channel, the counterpart of masked mean pooling.

    Args:
        features: of P pairs of a slice and a structure, (P, C, h, w).
        cells: those that belong to the structure, (P, h, w) bool.

    Returns:
        (P, C), float32 for half inputs. Without any cell: the mean over the whole map.
    """
    values, hidden, found, _ = _prepare(features, cells)
    best = hidden.argmax(2, keepdim=True)  # (P, C, 1)
    return torch.where(found, values.gather(2, best).squeeze(2), values.mean(2))


def means_of_highest(features: Tensor, cells: Tensor) -> Tensor:
    """Return the mean of the highest values of each channel; arguments as :func:`channel_maxima`.

    The maximum of a large set saturates, as nearly every channel fires somewhere: background is
    pooled so.
    """
    share, fewest = 0.05, 4  # of the cells; where there are fewer, all of them
    values, hidden, found, inside = _prepare(features, cells)
    length = int(values.shape[2])  # tracing gives a tensor, which cannot be rounded
    # enough for the largest set there can be: to read the sets' sizes would halt a GPU
    number = min(max(int(round(share * length)), fewest), length)
    highest = values.gather(2, hidden.topk(number, 2)[1])  # falling
    count = inside.sum(2, keepdim=True).to(values.dtype)  # (P, 1, 1)
    wanted = torch.minimum(torch.round(share * count).clamp_min(fewest), count)
    wanted = wanted.clamp_max(number)  # half a cell can round the other way in float32
    averaged = torch.arange(number, device=values.device) < wanted
    kept = torch.where(averaged, highest, torch.zeros_like(highest))
    return torch.where(found, kept.sum(2) / wanted.squeeze(2), values.mean(2))


def _prepare(features: Tensor, cells: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the values (P, C, L), those by which cells are chosen, and whether there are cells."""
    values = to_compute_dtype(features).flatten(2)
    inside = cells.flatten(1)  # (P, L)
    found = inside.any(1, keepdim=True)
    inside = (inside | torch.logical_not(found)).unsqueeze(1)  # there is no maximum of nothing
    hidden = values.detach().masked_fill(torch.logical_not(inside), -float("inf"))
    return values, hidden, found, inside
