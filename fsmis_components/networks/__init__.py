"""Networks: one method, one file, one class."""

from fsmis_components.networks.alpnet import ALPNet
from fsmis_components.networks.cow import CoW
from fsmis_components.networks.encoders import (
    EncoderLevels,
    ResNet101,
    ResNet101Levels,
    ResUNet,
    build_encoder,
)
from fsmis_components.networks.few_shot_network import FewShotNetwork, SliceFeatures
from fsmis_components.networks.ipsnet import IPSNet

__all__ = [
    "ALPNet",
    "CoW",
    "EncoderLevels",
    "FewShotNetwork",
    "IPSNet",
    "ResNet101",
    "ResNet101Levels",
    "ResUNet",
    "SliceFeatures",
    "build_encoder",
]
