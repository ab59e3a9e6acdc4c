"""The sum of the loss terms of a batch of episodes; the boundary loss of CoW."""

from collections.abc import Mapping
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.precision import to_compute_dtype

# sides of the pools that find a boundary and that widen it (CoW, theta0 and theta)
BOUNDARY, TOLERANCE = 3, 5


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
        terms = pred.keys() - {"logits"}
        if terms != self.weights.keys():
            raise ValueError(
                "EpisodeLoss: expected a weight for each term and no other, got terms "
                f"{sorted(terms)} and weights of {sorted(self.weights)}"
            )
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


def boundary_f1_loss(margins: Tensor, label: Tensor) -> Tensor:
    """Return one minus the boundary F1 score per episode.

    Bokhovkin and Burnaev, "Boundary Loss for Remote Sensing Imagery Semantic Segmentation" (ISNN
    2019), on the two-class map [sigmoid(-margin), sigmoid(margin)]. The boundary of a map P is
    ``b(P) = maxpool(1 - P) - (1 - P)``: the inner rim of a class, one pixel wide. A boundary
    pixel counts as met where the other boundary, widened by a second max-pool, covers it.
    Precision and recall are taken for each class; where neither map has a boundary they are 0.

    Averaged over the two classes and over structures, (B,); float32 for half inputs, as the rim is
    a small difference of large numbers.

    Args:
        margins: score_fg - score_bg, (B, N, H, W).
        label: 1 inside the structure, 0 outside, (B, N, H, W).
    """
    margins = to_compute_dtype(margins)
    inside = (label == 1).to(margins.dtype)
    # 1 - P of the classes [background, foreground]
    predicted = _boundary([torch.sigmoid(margins), torch.sigmoid(-margins)], BOUNDARY)
    expected = _boundary([inside, 1 - inside], BOUNDARY)
    precision = _covered(predicted, _widened(expected, TOLERANCE))
    recall = _covered(expected, _widened(predicted, TOLERANCE))
    score = 2 * precision * recall / (precision + recall + 1e-7)
    return (1 - score).reshape(margins.shape[0], -1).mean(1)


def _boundary(complements: List[Tensor], width: int) -> Tensor:
    """Return the rims of both classes, (1, B * 2 * N, H, W)."""
    joined = torch.cat(complements, 1)
    # pooling runs over channels that lie side by side four times as fast as over single planes
    planes = joined.flatten(0, 1).unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return _widened(planes, width) - planes


def _widened(planes: Tensor, width: int) -> Tensor:
    return F.max_pool2d(planes, width, 1, width // 2)


def _covered(boundary: Tensor, cover: Tensor) -> Tensor:
    """Return the share of each boundary that lies under the cover, (1, B * 2 * N)."""
    return (boundary * cover).sum((2, 3)) / (boundary.sum((2, 3)) + 1e-7)
