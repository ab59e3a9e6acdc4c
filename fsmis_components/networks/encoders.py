"""Encoders turn grey slices into feature maps at a low, a middle and a high level."""

from typing import Dict, List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncoderLevels(NamedTuple):
    """Feature maps of one batch of slices; methods use the levels that their paper names."""

    low: Tensor
    mid: Tensor
    high: Tensor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a skip path (He et al., CVPR 2016, Fig. 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


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

    def __init__(
        self, widths: Tuple[int, int, int, int] = (32, 64, 128, 256), out_channels: int = 128
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.out_channels = out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, w2, 5, 2, 2, bias=False), nn.BatchNorm2d(w2), nn.ReLU()
        )
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
            low (B, w2, H/2, W/2), mid (B, w8, H/8, W/8), high (B, out_channels, H/4, W/4).
        """
        low = self.stage2(self.stem(image))
        quarter = self.stage4(low)
        eighth = self.stage8(quarter)
        mid = self.up8(torch.cat([_double(self.stage16(eighth)), eighth], 1))
        high = self.head(self.up4(torch.cat([_double(mid), quarter], 1)))
        return EncoderLevels(low, mid, high)


class Bottleneck(nn.Module):
    """The 1x1, 3x3, 1x1 block of ResNet-101; module names follow torchvision's checkpoints."""

    def __init__(
        self, in_channels: int, planes: int, stride: int, dilation: int, project: bool
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Module = nn.Identity()
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * planes, 1, stride, bias=False),
                nn.BatchNorm2d(4 * planes),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet101Backbone(nn.Module):
    """ResNet-101 with its later strides replaced by dilation.

    The layout of torchvision's ``deeplabv3_resnet101`` backbone: when a stage dilates, its first
    block keeps the dilation of the stage before.

    Args:
        stride: output stride, 4 or 8; stages behind it dilate.
        last_stage: 4, or 3 to leave layer4 out.

    Raises:
        ValueError: another stride or last stage.
    """

    def __init__(self, stride: int = 8, last_stage: int = 4) -> None:
        super().__init__()
        if stride not in (4, 8) or last_stage not in (3, 4):
            raise ValueError(
                f"ResNet101: expected stride 4 or 8 and last_stage 3 or 4, got {stride} and "
                f"{last_stage}"
            )
        dilation = 8 // stride  # of layer2
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, 1, 1, 1)
        self.layer2 = _stage(256, 128, 4, stride // 4, 1, dilation)
        self.layer3 = _stage(512, 256, 23, 1, dilation, 2 * dilation)
        self.layer4: nn.Module = nn.Identity()
        if last_stage == 4:
            self.layer4 = _stage(1024, 512, 3, 1, 2 * dilation, 4 * dilation)

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to layer1 (stride 4), layer2 and the last stage (output stride)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        one = self.layer1(x)
        two = self.layer2(one)
        return one, two, self.layer4(self.layer3(two))


class ResNet101(nn.Module):
    """The papers' encoder: dilated ResNet-101 and a bare 1x1 reduction of its last stage.

    SSL-ALPNet (Ouyang et al., TMI 2022) and CoW (Jiang and Zhang, IJCAI 2025), released code: no
    batch norm and no ReLU after the reduction; a grey slice is copied to three channels.

    Args:
        out_channels: channels of the high level; 256 in SSL-ALPNet, 512 in CoW.
        stride: of the high level; 8 in SSL-ALPNet, 4 in CoW.
        last_stage: the stage whose features are reduced; 4 in SSL-ALPNet, 3 in CoW, which then
            has no layer4.

    Raises:
        ValueError: another stride than 4 or 8, or another last stage than 3 or 4.
    """

    def __init__(self, out_channels: int = 256, stride: int = 8, last_stage: int = 4) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride
        self.pad_multiple = stride
        self.backbone = ResNet101Backbone(stride, last_stage)
        self.reduction = nn.Conv2d(2048 if last_stage == 4 else 1024, out_channels, 1, bias=False)

    def forward(self, image: Tensor) -> EncoderLevels:
        """Encode slices.

        Args:
            image: (B, 1, H, W), H and W multiples of the stride.

        Returns:
            low (B, 256, H/4, W/4), mid (B, 512, H/stride, W/stride) and high (B, out_channels,
            H/stride, W/stride).
        """
        low, mid, top = self.backbone(image.expand(-1, 3, -1, -1))
        return EncoderLevels(low, mid, self.reduction(top))

    @torch.jit.unused
    def load_torchvision(self, state_dict: Dict[str, Tensor]) -> List[str]:
        """Take the backbone of a torchvision ``deeplabv3_resnet101`` checkpoint.

        Args:
            state_dict: the checkpoint; its ASPP and auxiliary heads are left out, and layer4
                where this encoder has none.

        Returns:
            The names that were left out, in the checkpoint's order.

        Raises:
            ValueError: a backbone weight is missing or has another shape.
        """
        prefix = "backbone."
        weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        own = self.backbone.state_dict()
        wrong = [
            name for name, w in own.items() if name not in weights or weights[name].shape != w.shape
        ]
        if wrong:
            message = (
                "ResNet101: expected a deeplabv3_resnet101 checkpoint with weights named "
                f"'backbone.*', got {len(state_dict)} entries; {len(wrong)} needed ones are "
                f"missing or of another shape, the first being 'backbone.{wrong[0]}'"
            )
            raise ValueError(message)
        self.backbone.load_state_dict({name: weights[name] for name in own})
        taken = {prefix + name for name in own}
        return [name for name in state_dict if name not in taken]


def build_encoder(name: str) -> nn.Module:
    """Build an encoder by its name.

    Args:
        name: ``resunet`` (compact), ``resnet101`` (SSL-ALPNet's: layer4 at stride 8 in 256
            channels) or ``resnet101_layer3`` (CoW's: layer3 at stride 4 in 512 channels).

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
    raise ValueError(
        f"encoder: expected 'resunet', 'resnet101' or 'resnet101_layer3', got {name!r}"
    )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _stage(
    in_channels: int, planes: int, blocks: int, stride: int, first_dilation: int, dilation: int
) -> nn.Sequential:
    layers = [Bottleneck(in_channels, planes, stride, first_dilation, project=True)]
    for _ in range(1, blocks):
        layers.append(Bottleneck(4 * planes, planes, 1, dilation, project=False))
    return nn.Sequential(*layers)
