"""The sum of the loss terms of a batch of episodes."""

from typing import Dict

import torch
from torch import Tensor, nn

from fsmis_components.losses.boundary import boundary_loss


class EpisodeLoss(nn.Module):
    """Add the loss terms that a network reports, and the boundary loss, with their weights.

    Args:
        alignment_weight: weight of the prototype alignment loss; 1 in SSL-ALPNet.
        boundary_weight: weight of :func:`boundary_loss`, a reconstruction; 0 leaves it out.
    """

    def __init__(self, alignment_weight: float = 1.0, boundary_weight: float = 0.0) -> None:
        super().__init__()
        self.alignment_weight = alignment_weight
        self.boundary_weight = boundary_weight

    def forward(self, pred: Dict[str, Tensor], label: Tensor) -> Tensor:
        """Return the weighted sum of terms of shape (B,), averaged over the batch.

        Args:
            pred: what the network returns in training mode.
            label: the query's masks, (B, N, H, W).

        Raises:
            ValueError: the total is not finite, so the next step would destroy the weights.
        """
        query, alignment = pred["query_loss"].mean(), pred["alignment_loss"].mean()
        total = query + self.alignment_weight * alignment
        if self.boundary_weight != 0:
            margins = pred["logits"][:, 1:]
            total = total + self.boundary_weight * boundary_loss(margins, label).mean()
        if not torch.isfinite(total):
            raise ValueError(
                f"EpisodeLoss: expected finite loss terms, got query_loss {query.item():.4g} and "
                f"alignment_loss {alignment.item():.4g}"
            )
        return total
