"""Networks: one method, one file, one class."""

from fsmis_components.networks.alpnet import ALPFeatures, ALPNet
from fsmis_components.networks.encoders import EncoderLevels, ResNet101, ResUNet, build_encoder

__all__ = ["ALPFeatures", "ALPNet", "EncoderLevels", "ResNet101", "ResUNet", "build_encoder"]
