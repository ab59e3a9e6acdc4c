"""The sum of the loss terms of a batch of episodes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fsmis_components.losses.boundary_f1 import boundary_f1_loss


class EpisodeLoss(nn.Module):
    """Add the loss terms that a network reports, and a boundary loss, with their weights.

    Args:
        weights: weight of each term that the network reports, by its name.
        boundary_weight: weight of :func:`boundary_f1_loss` of the query; 0 leaves it out.
    """

    def __init__(self, weights: Mapping[str, float], boundary_weight: float = 0.0) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.boundary_weight = boundary_weight

    def forward(self, pred: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Return the weighted sum of terms of shape (B,), averaged over the batch.

        Args:
            pred: what the network returns in training mode: logits (B, 1 + N, H, W) and terms.
            label: the query's masks, (B, N, H, W).

        Raises:
            ValueError: the network reports other terms than those that have a weight, or the
                total is not finite, so that the next step would destroy the network's weights.
        """
        self._check_names(pred)
        values = {name: pred[name].mean() for name in self.weights}
        weights = self.weights
        if self.boundary_weight != 0:
            values["boundary_loss"] = boundary_f1_loss(pred["logits"][:, 1:], label).mean()
            weights = {**weights, "boundary_loss": self.boundary_weight}
        total = torch.stack([weights[name] * value for name, value in values.items()]).sum()
        if not torch.isfinite(total):
            said = ", ".join(f"{name} {value.item():.4g}" for name, value in values.items())
            raise ValueError(f"EpisodeLoss: expected finite loss terms, got {said}")
        return total

    def _check_names(self, pred: Mapping[str, Tensor]) -> None:
        terms = {name for name in pred if name != "logits"}
        if terms == self.weights.keys():
            return
        found = {
            "without a weight": terms - self.weights.keys(),
            "with a weight but not reported": self.weights.keys() - terms,
        }
        said = "; ".join(f"{', '.join(sorted(n))} {how}" for how, n in found.items() if n)
        raise ValueError(f"EpisodeLoss: expected a weight for each term and no other, got {said}")
