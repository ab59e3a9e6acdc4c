"""Losses of few-shot episodes."""

from fsmis_components.losses.auxiliary import auxiliary_loss
from fsmis_components.losses.boundary import boundary_loss
from fsmis_components.losses.boundary_f1 import boundary_f1_loss
from fsmis_components.losses.episode_loss import EpisodeLoss
from fsmis_components.losses.margin_cross_entropy import margin_cross_entropy
from fsmis_components.losses.prototype import prototype_loss
from fsmis_components.losses.self_prediction import self_prediction_loss
from fsmis_components.losses.soft_dice import soft_dice_loss

__all__ = [
    "EpisodeLoss",
    "auxiliary_loss",
    "boundary_f1_loss",
    "boundary_loss",
    "margin_cross_entropy",
    "prototype_loss",
    "self_prediction_loss",
    "soft_dice_loss",
]
