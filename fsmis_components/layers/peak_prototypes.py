"""Peak prototypes: the strongest evidence for a class, where a mean prototype is the average.

IPS-style, reconstructed from the abstract of Song et al., Artif. Intell. Med. 2025, which says only
that peak prototypes carry "the greatest semantic information". Cells are chosen without gradient;
it flows into the values chosen, one cell of equal ones.
"""

from typing import Tuple

import torch
from torch import Tensor

from fsmis_components.ops.precision import to_compute_dtype


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
