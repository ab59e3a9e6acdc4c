"""A small IPSNet on a quick encoder with four different levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fsmis_components.networks import EncoderLevels, IPSNet

WEIGHTS = {
    "query_loss": 1.0,
    "dice_loss": 1.0,
    "intermediate_loss": 0.4,
    "guidance_loss": 0.4,
    "self_loss": 0.4,
    "prototype_loss": 0.2,
    "alignment_loss": 0.5,
}


class LevelsEncoder(nn.Module):
    """One convolution for each level, at the strides of ``resnet101_levels``."""

    stride = 4
    pad_multiple = 8
    strides = (2, 4, 4, 8)
    channels = (4, 6, 8, 12)
    out_channels = 12

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(1, channels, stride, stride)
            for channels, stride in zip(self.channels, self.strides, strict=True)
        )

    def forward(self, image: Tensor) -> EncoderLevels:
        maps = []
        for level in self.levels:
            maps.append(level(image))
        return EncoderLevels(maps[0], maps[1], maps[2], maps[3])


def network(seed: int = 0, **changes: object) -> IPSNet:
    torch.manual_seed(seed)
    settings = {
        "encoder": LevelsEncoder(),
        "deep_width": 8,
        "split_width": 4,
        "decoder_widths": (8, 8, 8),
        "background_grid": 4,
        "warmup_steps": 4,
    } | changes
    return IPSNet(**settings).eval()


def without_suppression(net: IPSNet) -> IPSNet:
    """Force gamma to 0, so that an untrained interaction changes nothing."""
    prototypes = net.decision.prototypes
    for part in (prototypes.mean_interaction, prototypes.peak_interaction):
        for layer in part.layers if part is not None else []:
            layer.gamma_logit.data.fill_(-math.inf)
    return net


def with_trained_decoder(net: IPSNet) -> IPSNet:
    """Let the decoder's last weights leave zero."""
    for path in net.decision.decoder.paths:
        nn.init.normal_(path.last.weight)
    return net


def support_of(net: IPSNet, item: dict[str, Tensor]) -> dict[str, Tensor]:
    valid = torch.ones(item["support_label"].shape[:3], dtype=torch.bool)
    features = net.encode(item["support_image"].flatten(0, 1))
    return net.build_support(features, item["support_label"], valid)
