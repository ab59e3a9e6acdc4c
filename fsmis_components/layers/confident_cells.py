"""Which cells of a query are surely foreground, and which surely background."""

import math
from typing import Tuple

import torch
from torch import Tensor, nn


class ConfidentCells(nn.Module):
    """Cells whose probability exceeds a threshold; where there are none, the most probable ones.

    Thresholds are those of SSP (Fan et al., ECCV 2022). SSP falls back to the best 12 cells; small
    organs have fewer, so it is a share of all cells here. The choice is hard: no gradient.

    Args:
        foreground: probability that foreground must exceed; 0.7 in SSP.
        background: probability of background that must be exceeded; 0.6 in SSP.
        share: of all cells, taken where no cell is sure.
        fewest: cells, taken at least then.

    Raises:
        ValueError: a threshold outside of [0, 1).
    """

    def __init__(
        self,
        foreground: float = 0.7,
        background: float = 0.6,
        share: float = 0.002,
        fewest: int = 4,
    ) -> None:
        super().__init__()
        if not (0 <= foreground < 1 and 0 <= background < 1):
            raise ValueError(
                f"ConfidentCells: expected thresholds in [0, 1), got {foreground} and {background}"
            )
        self.foreground = foreground
        self.background = background
        self.share = share
        self.fewest = fewest

    def forward(self, probability: Tensor, inside: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the sure cells of foreground and of background, bool (B, Q, h, w) each.

        Args:
            probability: of foreground, (B, Q, h, w).
            inside: which cells belong to the image and not to its padding, bool (1, h, w).
        """
        probability = probability.detach().float()
        front = self._sure(probability, self.foreground, inside)
        return front, self._sure(1 - probability, self.background, inside)

    def _sure(self, probability: Tensor, threshold: float, inside: Tensor) -> Tensor:
        known = torch.where(inside, probability, -1.0).flatten(-2)  # (B, Q, h * w)
        count = min(max(self.fewest, math.ceil(self.share * known.shape[-1])), known.shape[-1])
        least = known.topk(count, dim=-1).values[..., -1:].clamp_min(0)
        sure = known > threshold
        # as torch.where(some, sure, known >= least), which onnxruntime has not for bools
        some = sure.any(-1, keepdim=True)
        sure = sure | (torch.logical_not(some) & (known >= least))
        return sure.reshape(probability.shape)
