"""Peak prototypes: the strongest evidence for a class, where a mean prototype is the average."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import shape_text, to_compute_dtype

KINDS = ("channel_max", "topk_mean", "argmax_vector", "argmax_similarity")


class PeakPrototypes(nn.Module):
    """One peak prototype of each set of cells.

    IPS-style, reconstructed from the abstract of Song et al., Artif. Intell. Med. 2025, which says
    only that peak prototypes carry "the greatest semantic information". Readings of that:

    - ``channel_max``: the maximum of each channel, the counterpart of masked mean pooling.
    - ``topk_mean``: the mean of the highest values of each channel. The maximum of a large set
      saturates, as nearly every channel fires somewhere: background is pooled so.
    - ``argmax_vector``: the vector of the longest cell.
    - ``argmax_similarity``: the vector of the cell most like the mean of the cells (cosine).

    Cells are chosen without gradient; it flows into the values chosen, one cell of equal ones.
    On one CPU core 24 pairs of 256 channels at 64 x 64 take 0.1 to 0.4 s, their gradient 0.2 s.

    Args:
        kind: one of the above.
        share: of the cells whose values ``topk_mean`` averages, rounded to whole cells.
        fewest: cells that ``topk_mean`` averages at least; where there are fewer, all of them.

    Raises:
        ValueError: an unknown kind, a share outside (0, 1], or fewer than one cell.
    """

    def __init__(self, kind: str = "channel_max", share: float = 0.05, fewest: int = 4) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"PeakPrototypes: expected kind in {KINDS}, got {kind!r}")
        if not 0 < share <= 1 or fewest < 1:
            raise ValueError(
                "PeakPrototypes: expected share in (0, 1] and fewest >= 1, got "
                f"{share} and {fewest}"
            )
        self.kind = kind
        self.share = share
        self.fewest = fewest

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """Return the peak prototype of each pair of a slice and a structure.

        Args:
            features: of P pairs, (P, C, h, w).
            cells: those that belong to the structure, (P, h, w) bool.

        Returns:
            (P, C), float32 for half inputs. Without any cell: the mean over the whole map.

        Raises:
            ValueError: the cells do not lie on the features' grid, or are not bool.
        """
        if (
            features.dim() != 4
            or cells.dtype != torch.bool
            or cells.dim() != 3
            or cells.shape[0] != features.shape[0]
            or cells.shape[1:] != features.shape[2:]
        ):
            raise ValueError(
                "PeakPrototypes: expected features (P, C, h, w) and bool cells (P, h, w), got "
                f"{shape_text(features)} and {shape_text(cells)} of {cells.dtype}"
            )
        values = to_compute_dtype(features).flatten(2)  # (P, C, L)
        inside = cells.flatten(1)  # (P, L)
        found = inside.any(1, keepdim=True)
        inside = inside | torch.logical_not(found)  # there is no maximum of nothing
        fixed = values.detach()
        if self.kind == "channel_max":
            best = _hidden(fixed, inside.unsqueeze(1)).argmax(2, keepdim=True)  # (P, C, 1)
            peaks = values.gather(2, best).squeeze(2)
        elif self.kind == "topk_mean":
            peaks = self._mean_of_highest(values, inside.unsqueeze(1))
        elif self.kind == "argmax_vector":
            peaks = _vector_of_best(values, fixed.square().sum(1), inside)
        else:
            peaks = _vector_of_best(values, _likeness(fixed, inside), inside)
        return torch.where(found, peaks, values.mean(2))

    def _mean_of_highest(self, values: Tensor, inside: Tensor) -> Tensor:
        """Return (P, C) of cells inside (P, 1, L); pairs differ in how many are averaged."""
        length = int(values.shape[2])  # tracing gives a tensor, which cannot be rounded
        # enough for the largest set there can be: to read the sets' sizes would halt a GPU
        number = min(max(int(round(self.share * length)), self.fewest), length)
        highest = values.gather(2, _hidden(values.detach(), inside).topk(number, 2)[1])  # falling
        count = inside.sum(2, keepdim=True).to(values.dtype)  # (P, 1, 1)
        wanted = torch.minimum(torch.round(self.share * count).clamp_min(self.fewest), count)
        wanted = wanted.clamp_max(number)  # half a cell can round the other way in float32
        averaged = torch.arange(number, device=values.device) < wanted
        kept = torch.where(averaged, highest, torch.zeros_like(highest))
        return kept.sum(2) / wanted.squeeze(2)


def _hidden(values: Tensor, inside: Tensor) -> Tensor:
    return values.masked_fill(torch.logical_not(inside), -float("inf"))


def _likeness(values: Tensor, inside: Tensor) -> Tensor:
    """Return the cosine of each cell to the mean of the cells inside, (P, L)."""
    mean = masked_average_pool(values, inside.unsqueeze(1), 0.0).squeeze(1)  # (P, C)
    return (F.normalize(values, dim=1) * F.normalize(mean, dim=1).unsqueeze(2)).sum(1)


def _vector_of_best(values: Tensor, score: Tensor, inside: Tensor) -> Tensor:
    """Return the vectors (P, C) at the cells inside of the highest score (P, L)."""
    best = _hidden(score, inside).argmax(1)  # (P,)
    return values.gather(2, best[:, None, None].expand(-1, values.shape[1], -1)).squeeze(2)
