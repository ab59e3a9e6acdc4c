"""Losses of few-shot episodes."""

from fsmis_components.losses.decisions import (
    margin_cross_entropy,
    self_prediction_loss,
    soft_dice_loss,
)
from fsmis_components.losses.episode_loss import EpisodeLoss, boundary_f1_loss
from fsmis_components.losses.prototypes import auxiliary_loss, prototype_loss

__all__ = [
    "EpisodeLoss",
    "auxiliary_loss",
    "boundary_f1_loss",
    "margin_cross_entropy",
    "prototype_loss",
    "self_prediction_loss",
    "soft_dice_loss",
]
