"""The sum of the loss terms that a network reports for a batch of episodes."""

from typing import Dict, Optional

import torch
from torch import Tensor, nn


class EpisodeLoss(nn.Module):
    """Add a network's named loss terms with their weights.

    Args:
        alignment_weight: weight of the prototype alignment loss; 1 in SSL-ALPNet.
        boundary_weight: weight of the boundary loss, a reconstruction; 0 leaves it out.
    """

    def __init__(self, alignment_weight: float = 1.0, boundary_weight: float = 0.0) -> None:
        super().__init__()
        self.weights = {
            "query_loss": 1.0,
            "alignment_loss": alignment_weight,
            "boundary_loss": boundary_weight,
        }

    def forward(self, pred: Dict[str, Tensor], label: Optional[Tensor] = None) -> Tensor:
        """Return the weighted sum of terms of shape (B,), averaged over the batch.

        Args:
            pred: what the network returns in training mode.
            label: unused; MONAI's trainer passes it, the network has already seen it.

        Raises:
            ValueError: the total is not finite, so the next step would destroy the weights.
        """
        total = torch.zeros((), device=pred["query_loss"].device)
        for name, weight in self.weights.items():
            if weight != 0:
                total = total + weight * pred[name].mean()
        if not torch.isfinite(total):
            terms = ", ".join(f"{k} {float(pred[k].mean()):.4g}" for k in self.weights if k in pred)
            raise ValueError(f"EpisodeLoss: expected finite loss terms, got {terms}")
        return total
