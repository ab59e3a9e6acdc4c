"""Dice and cross-entropy where some structures of a slice are not known."""

from __future__ import annotations

import math

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn


class MarginalDiceCELoss(nn.Module):
    """`DiceCELoss` that neither rewards nor punishes a structure whose mask is doubtful.

    A doubtful structure counts as background: the probability of both is one (marginal loss, Shi et
    al., Medical Image Analysis 2021), and its Dice is left out.

    Args:
        dice_weight: of the Dice loss, which is taken over the batch.
        ce_weight: of the cross-entropy.
        advantage: by how much the odds of all structures are raised while the network learns; what
            it says without takes that much less (logit adjustment, Menon et al., ICLR 2021). Dice
            alone takes what half its value of the masks show, which is too much where they differ.

    Example:
        >>> logits = torch.zeros(1, 3, 4, 4)
        >>> label = torch.zeros(1, 3, 4, 4)
        >>> label[:, 0], label[:, 2] = 1.0, -1.0  # background, and a structure nobody knows of
        >>> round(float(MarginalDiceCELoss(dice_weight=0.0)(logits, label)), 3)  # -log(2 / 3)
        0.405
    """

    def __init__(
        self, dice_weight: float = 1.0, ce_weight: float = 1.0, advantage: float = 1.0
    ) -> None:
        super().__init__()
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.advantage = advantage
        self.dice = DiceLoss(batch=True)

    def extra_repr(self) -> str:
        """All settings: what this prints tells one training from another."""
        settings = {key: getattr(self, key) for key in ("dice_weight", "ce_weight", "advantage")}
        return ", ".join(f"{key}={value}" for key, value in settings.items())

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, 1 + N, H, W).
            label: (B, 1 + N, H, W), one-hot; a doubtful structure's map is -1 throughout.
        """
        doubtful = label[:, :, 0, 0] < 0
        as_background = doubtful.clone()
        as_background[:, 0] = True
        raised = logits.float().clone()
        raised[:, 1:] += math.log(self.advantage)
        log_shares = raised.log_softmax(1)
        hidden = ~as_background[:, :, None, None]
        background = log_shares.masked_fill(hidden, -torch.inf).logsumexp(1, keepdim=True)
        target = label.masked_fill(doubtful[:, :, None, None], 0.0)
        # what is left of a slice without its known structures is background, or doubtful
        known = target[:, 1:]
        entropy = -(
            (1.0 - known.sum(1, keepdim=True)) * background
            + (known * log_shares[:, 1:]).sum(1, keepdim=True)
        ).mean()
        shares = log_shares[:, 1:].exp() * (~doubtful[:, 1:, None, None])
        return self.dice_weight * self.dice(shares, known) + self.ce_weight * entropy
