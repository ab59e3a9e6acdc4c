"""Prototypes of ALPNet: local means in grid cells, and where these serve."""

from typing import List, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.precision import shape_text, to_compute_dtype


class GridPrototypes(nn.Module):
    """Local prototypes: the mean feature of each grid cell that a mask fills.

    Incomplete cells at the lower and right border are left out, as in ALPNet (Ouyang et al.,
    ECCV 2020, section 3.3). Cells are those of the features, so all structures share them.

    Args:
        window: side of a cell in feature positions, clipped to the features' size.
        threshold: share of a cell that the mask must exceed; 0.95 in the paper.
    """

    def __init__(self, window: int, threshold: float = 0.95) -> None:
        super().__init__()
        self.window = _positive(window, "GridPrototypes")
        self.threshold = threshold

    def forward(self, features: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the cells and which of them belong to each structure.

        Args:
            features: (B, C, h, w).
            mask: weights in [0, 1], (B, N, h, w).

        Returns:
            Cells (B, P, C) in row order and their validity (B, N, P) bool, with
            P = (h // window) * (w // window).

        Raises:
            ValueError: the mask does not lie on the features' grid.
        """
        if mask.dim() != 4 or features.dim() != 4 or mask.shape[2:] != features.shape[2:]:
            raise ValueError(
                "GridPrototypes: expected features (B, C, h, w) and mask (B, N, h, w), got "
                f"{shape_text(features)} and {shape_text(mask)}; resize the mask to the features"
            )
        window = _clipped(self.window, features)
        cells = F.avg_pool2d(features, window).flatten(2).transpose(1, 2)  # (B, P, C)
        filled = F.avg_pool2d(to_compute_dtype(mask), window).flatten(2)  # (B, N, P)
        return cells, filled > self.threshold


class PrototypeMode(nn.Module):
    """The switch between local and global prototypes: does a structure fill any block?

    Args:
        window: side of a block in feature positions, clipped to the features' size.
        threshold: share of the block that the mask must reach; 0.95 in ALPNet.
    """

    def __init__(self, window: int, threshold: float = 0.95) -> None:
        super().__init__()
        self.window = _positive(window, "PrototypeMode")
        self.threshold = threshold

    def forward(self, mask: Tensor) -> Tensor:
        """Return (B, N) bool: True where local prototypes serve; mask (B, N, h, w)."""
        filled = F.avg_pool2d(to_compute_dtype(mask), _clipped(self.window, mask))
        return filled.flatten(2).amax(2) >= self.threshold


def _positive(window: int, who: str) -> int:
    if window < 1:
        raise ValueError(f"{who}: expected window >= 1 feature position, got {window}")
    return window


def _clipped(window: int, maps: Tensor) -> List[int]:
    return [min(window, maps.shape[-2]), min(window, maps.shape[-1])]
