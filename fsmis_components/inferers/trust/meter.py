"""What says how far each structure of a result can be trusted, gathered slab by slab."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fsmis_components.inferers.shape_prior import largest_channel, to_cells

_NOTHING = 1e-6


@dataclass(frozen=True)
class Measures:
    """What is known of one structure of a result without any label of the query."""

    # Dice of the mask with its own probabilities, in [0, 1]: about what the true Dice would be if
    # each voxel were as probable as the margins say
    certainty: float
    # cosine of the mask with the support's shape where it was expected in the query, in [0, 1]
    agreement: float


class TrustMeter:
    """Sums over the slabs of a scan, from which the measures of each structure follow.

    Args:
        num_structures: N.
        cell: working pixels along the side of a cell of the shapes.

    Example:
        >>> meter = TrustMeter(num_structures=1, cell=4)
        >>> meter.add(torch.full((2, 1, 8, 8), 30.0), torch.ones(2, 1, 2, 2))
        >>> meter.result()
        [Measures(certainty=1.0, agreement=1.0)]
    """

    def __init__(self, num_structures: int, cell: int) -> None:
        self.cell = cell
        # per structure: see `add`
        self._sums = torch.zeros(num_structures, 6, dtype=torch.float64)

    def add(self, margins: Tensor, fitted: Tensor) -> None:
        """Take in some slices; each slice of a scan once.

        Args:
            margins: (n, N, H, W) at the working resolution as they decide, prior included.
            fitted: (n, N, h, w) the support's shapes at their place in the query, on their cells,
                in [0, 1].
        """
        # every second row and column is enough for sums over a structure, at a quarter of the cost
        stride = 2 if self.cell % 2 == 0 else 1
        thin = margins[..., ::stride, ::stride]
        logits = torch.cat([torch.zeros_like(thin[:, :1]), thin], 1)
        numbers = torch.arange(1, logits.shape[1], device=logits.device)[:, None, None]
        masks = (largest_channel(logits).unsqueeze(1) == numbers).float()
        cells = to_cells(masks, self.cell // stride)
        probabilities = logits.softmax(1)[:, 1:]
        parts = (
            probabilities * masks,
            probabilities,
            masks,
            cells * fitted,
            cells.square(),
            fitted.square(),
        )
        # slices in float32, the volume in float64: a structure may have 10^8 voxels
        self._sums += torch.stack([part.sum((2, 3)).double().sum(0) for part in parts], 1)

    def result(self) -> list[Measures]:
        """The measures of each structure; certainty and agreement are 0 where nothing was found."""
        return [
            Measures(
                certainty=2 * both / max(whole + pixels, _NOTHING),
                agreement=product / max((mask * shape) ** 0.5, _NOTHING),
            )
            for both, whole, pixels, product, mask, shape in self._sums.tolist()
        ]


# Dice = _OFFSET + _SLOPE * the geometric mean of the two measures: fitted on ACDC alone, so that
# CHAOS-T2 and hippocampus could test it
_OFFSET, _SLOPE = -0.47, 1.48


def expected_dice(measures: Measures) -> float:
    """Expected Dice in [0, 1]; 0 where nothing was found.

    Each measure sees what the other cannot: a confident mask in the wrong place has little
    agreement, and a mask that only follows the expected shape has little certainty.
    """
    both = (measures.certainty * measures.agreement) ** 0.5
    return min(max(_OFFSET + _SLOPE * both, 0.0), 1.0)
