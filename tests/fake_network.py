"""A network of the contract that a reader can compute by hand: it compares intensities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsmis_components.layers.support_state import SupportState


class Intensities(NamedTuple):
    high: Tensor
    image_size: tuple[int, int]


class IntensityNetwork(nn.Module):
    """A pixel belongs to the structure if it is nearer to its mean intensity than to the rest's."""

    def __init__(self, window: int = 3) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.window = window
        self.encoded: list[int] = []
        self.seeds: Tensor | None = None

    def support_settings(self) -> dict[str, object]:
        return {"windows": (self.window,)}

    def encode(self, image: Tensor) -> Intensities:
        self.encoded.append(len(image))
        return Intensities(image * self.gain, (image.shape[-2], image.shape[-1]))

    def build_support(
        self, features: Intensities, masks: Tensor, valid: Tensor, seeds: Tensor | None = None
    ) -> SupportState:
        self.seeds = seeds
        high = features.high.unflatten(0, masks.shape[:2])  # (B, S, 1, H, W)
        masks = masks * valid[..., None, None]

        def mean(weight: Tensor) -> Tensor:
            total = (high * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp_min(1e-5)
            return total.transpose(1, 2)[..., None]  # (B, N, S, 1)

        state = {"valid": valid.transpose(1, 2), "foreground": mean(masks)}
        return {**state, "background": mean(1 - masks)}

    def segment(
        self, query_features: Intensities, state: SupportState, section_weights: Tensor
    ) -> Tensor:
        weights = section_weights * state["valid"]  # (B, N, S)
        total = weights.sum(-1)

        def distance(name: str) -> Tensor:
            mean = (state[name][..., 0] * weights).sum(-1) / total.clamp_min(1e-5)
            return (query_features.high - mean[..., None, None]).abs()

        margin = 20 * (distance("background") - distance("foreground"))
        margin = torch.where(total[..., None, None] > 0, margin, -40.0)
        return torch.cat([torch.zeros_like(margin[:, :1]), margin], 1)


class ContrastNetwork(IntensityNetwork):
    """Unit-length features need two channels to tell intensities apart."""

    def encode(self, image: Tensor) -> Intensities:
        features = super().encode(image)
        return features._replace(high=torch.cat([image, torch.ones_like(image)], 1))

    def build_support(
        self, features: Intensities, masks: Tensor, valid: Tensor, *seeds: Tensor
    ) -> SupportState:
        return super().build_support(_intensities(features), masks, valid, *seeds)

    def segment(self, features: Intensities, state: SupportState, weights: Tensor) -> Tensor:
        return super().segment(_intensities(features), state, weights)


def _intensities(features: Intensities) -> Intensities:
    return features._replace(high=features.high[:, :1])
