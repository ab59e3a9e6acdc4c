"""Encoders turn grey slices into feature maps at four levels; here the compact one."""

from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.networks.resnet101 import (
    EncoderLevels,
    ResNet101,
    ResNet101Levels,
    conv_norm,
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a skip path (He et al., CVPR 2016, Fig. 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = F.relu(conv_norm(x, self.conv1, self.norm1), inplace=True)
        skip = conv_norm(x, *self.skip) if self.skip else x
        return F.relu(conv_norm(y, self.conv2, self.norm2).add_(skip), inplace=True)


class ResUNet(nn.Module):
    """Compact residual U-Net with features at stride 4, made to be trained from scratch.

    A decoder brings the detail of the early stages back to a quarter of the image's size, which
    a classification network at stride 8 has thrown away. 3.8 million parameters by default.

    Args:
        widths: channels of the four stages, at strides 2, 4, 8 and 16.
        out_channels: channels of the high level, the features that prototypes are made of.
    """

    stride = 4
    pad_multiple = 16
    strides = (2, 4, 8, 4)

    def __init__(
        self, widths: Tuple[int, int, int, int] = (32, 64, 128, 256), out_channels: int = 128
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.out_channels = out_channels
        self.channels = (w2, w4, w8, out_channels)
        self.stem = nn.Sequential(nn.Conv2d(1, w2, 5, 2, 2, bias=False), nn.BatchNorm2d(w2))
        self.stage2 = ResidualBlock(w2, w2)
        self.stage4 = nn.Sequential(ResidualBlock(w2, w4, 2), ResidualBlock(w4, w4))
        self.stage8 = nn.Sequential(ResidualBlock(w4, w8, 2), ResidualBlock(w8, w8))
        self.stage16 = nn.Sequential(ResidualBlock(w8, w16, 2), ResidualBlock(w16, w16))
        self.up8 = ResidualBlock(w16 + w8, w8)
        self.up4 = ResidualBlock(w8 + w4, out_channels)
        self.head = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, image: Tensor) -> EncoderLevels:
        """Encode slices.

        Args:
            image: (B, 1, H, W), H and W multiples of 16.

        Returns:
            edge (B, w2, H/2, W/2), low (B, w4, H/4, W/4), mid (B, w8, H/8, W/8) and high
            (B, out_channels, H/4, W/4).
        """
        stem = F.relu(conv_norm(image, *self.stem), inplace=True)
        edge = self.stage2(stem)
        low = self.stage4(edge)
        eighth = self.stage8(low)
        mid = self.up8(torch.cat([_double(self.stage16(eighth)), eighth], 1))
        high = self.head(self.up4(torch.cat([_double(mid), low], 1)))
        return EncoderLevels(edge, low, mid, high)


def build_encoder(name: str) -> nn.Module:
    """Build an encoder by its name.

    Args:
        name: ``resunet`` (compact), ``resnet101`` (SSL-ALPNet's: layer4 at stride 8 in 256
            channels), ``resnet101_layer3`` (CoW's: layer3 at stride 4 in 512 channels) or
            ``resnet101_levels`` (IPSNet's: layer4 at stride 8, layer2 and layer3 at stride 4).

    Raises:
        ValueError: no encoder is called so.
    """
    if name == "resunet":
        return ResUNet()
    if name == "resnet101":
        return ResNet101()
    if name == "resnet101_layer3":
        encoder = ResNet101(out_channels=512, stride=4, last_stage=3)
        nn.init.kaiming_normal_(encoder.reduction.weight, mode="fan_out", nonlinearity="relu")
        return encoder
    if name == "resnet101_levels":
        return ResNet101Levels()
    raise ValueError(
        "encoder: expected 'resunet', 'resnet101', 'resnet101_layer3' or 'resnet101_levels', got "
        f"{name!r}"
    )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
