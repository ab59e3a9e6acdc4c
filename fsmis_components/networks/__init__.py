"""Networks: one method, one file, one class."""

from fsmis_components.networks.alpnet import ALPNet
from fsmis_components.networks.cow import CoW
from fsmis_components.networks.encoders import EncoderLevels, ResNet101, ResUNet, build_encoder
from fsmis_components.networks.few_shot_network import FewShotNetwork, SliceFeatures

__all__ = [
    "ALPNet",
    "CoW",
    "EncoderLevels",
    "FewShotNetwork",
    "ResNet101",
    "ResUNet",
    "SliceFeatures",
    "build_encoder",
]
