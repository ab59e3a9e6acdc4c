"""Losses of few-shot episodes."""

from fsmis_components.losses.boundary import boundary_loss
from fsmis_components.losses.episode_loss import EpisodeLoss
from fsmis_components.losses.margin_cross_entropy import margin_cross_entropy

__all__ = ["EpisodeLoss", "boundary_loss", "margin_cross_entropy"]
