"""Encoders turn grey slices into feature maps at four levels: a compact one, the papers' ResNet."""

from typing import Dict, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncoderLevels(NamedTuple):
    """Feature maps of one batch of slices; methods use the levels that their paper names.

    An encoder says the channels and the strides of the four maps in its attributes ``channels``
    and ``strides``. ``high`` is the level that ALPNet and CoW make prototypes of.
    """

    edge: Tensor
    low: Tensor
    mid: Tensor
    high: Tensor


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Return ``norm(conv(x))``; in evaluation by one convolution, which saves a pass over the maps.

    The weights are multiplied anew each time (a thousandth of the products), so no copy of the
    network can be out of date, and what is stored or trained is untouched. The convolution has no
    bias; the result is a new tensor, which the caller may write over.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)


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
        """Map (B, 1, H, W), multiples of 16, to the levels of ``channels`` and ``strides``."""
        stem = F.relu(conv_norm(image, *self.stem), inplace=True)
        edge = self.stage2(stem)
        low = self.stage4(edge)
        eighth = self.stage8(low)
        mid = self.up8(torch.cat([_double(self.stage16(eighth)), eighth], 1))
        high = self.head(self.up4(torch.cat([_double(mid), low], 1)))
        return EncoderLevels(edge, low, mid, high)


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
        self.downsample = nn.Sequential()
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, 4 * planes, 1, stride, bias=False),
                nn.BatchNorm2d(4 * planes),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride)."""
        y = F.relu(conv_norm(x, self.conv1, self.bn1), inplace=True)
        y = F.relu(conv_norm(y, self.conv2, self.bn2), inplace=True)
        skip = conv_norm(x, *self.downsample) if self.downsample else x
        return F.relu(conv_norm(y, self.conv3, self.bn3).add_(skip), inplace=True)


class ResNet101Backbone(nn.Module):
    """ResNet-101 with its later strides replaced by dilation.

    The layout of torchvision's ``deeplabv3_resnet101`` backbone: when a stage dilates, its first
    block keeps the dilation of the stage before.

    Args:
        stride: of layer2 and layer3, 4 or 8; stages behind it dilate.
        last_stage: 4, or 3 to leave layer4 out.
        last_stride: 2 halves the resolution once more in layer4.
    """

    def __init__(self, stride: int = 8, last_stage: int = 4, last_stride: int = 1) -> None:
        super().__init__()
        dilation = 8 // stride  # of layer2
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, 1, 1, 1)
        self.layer2 = _stage(256, 128, 4, stride // 4, 1, dilation)
        self.layer3 = _stage(512, 256, 23, 1, dilation, 2 * dilation)
        self.layer4: nn.Module = nn.Identity()
        if last_stage == 4:
            last_dilation = 4 * dilation // last_stride
            self.layer4 = _stage(1024, 512, 3, last_stride, 2 * dilation, last_dilation)

    def forward(self, image: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the stem (stride 2) and the stages; without layer4 that is layer3."""
        stem = F.relu(conv_norm(image, self.conv1, self.bn1), inplace=True)
        one = self.layer1(F.max_pool2d(stem, 3, 2, 1))
        two = self.layer2(one)
        three = self.layer3(two)
        return stem, one, two, three, self.layer4(three)


class TorchvisionEncoder(nn.Module):
    """An encoder whose ``backbone``, a :class:`ResNet101Backbone`, takes torchvision's weights."""

    backbone: ResNet101Backbone

    def load_torchvision(self, state_dict: Dict[str, Tensor]) -> None:
        """Take the backbone of a torchvision ``deeplabv3_resnet101`` checkpoint, without heads.

        Raises:
            ValueError: a backbone weight is missing or has another shape.
        """
        prefix = "backbone."
        weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
        own = self.backbone.state_dict()
        for name, weight in own.items():
            if name not in weights or weights[name].shape != weight.shape:
                raise ValueError(
                    "ResNet101: expected a deeplabv3_resnet101 checkpoint with weights named "
                    f"'backbone.*'; 'backbone.{name}' is missing or of another shape"
                )
        self.backbone.load_state_dict({name: weights[name] for name in own})


class ResNet101(TorchvisionEncoder):
    """The papers' encoder: dilated ResNet-101 and a bare 1x1 reduction of its last stage.

    SSL-ALPNet (Ouyang et al., TMI 2022) and CoW (Jiang and Zhang, IJCAI 2025), released code: no
    batch norm and no ReLU after the reduction; a grey slice is copied to three channels.

    Args:
        out_channels: channels of the high level; 256 in SSL-ALPNet, 512 in CoW.
        stride: of the high level; 8 in SSL-ALPNet, 4 in CoW.
        last_stage: the stage whose features are reduced; 4 in SSL-ALPNet, 3 in CoW, which then
            has no layer4.
    """

    def __init__(self, out_channels: int = 256, stride: int = 8, last_stage: int = 4) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.stride = stride
        self.pad_multiple = stride
        self.channels = (64, 256, 512, out_channels)
        self.strides = (2, 4, stride, stride)
        self.backbone = ResNet101Backbone(stride, last_stage)
        self.reduction = nn.Conv2d(2048 if last_stage == 4 else 1024, out_channels, 1, bias=False)

    def forward(self, image: Tensor) -> EncoderLevels:
        """Map (B, 1, H, W), multiples of the stride, to stem, layer1, layer2, reduced last one."""
        stem, one, two, _, last = self.backbone(image.expand(-1, 3, -1, -1))
        return EncoderLevels(stem, one, two, self.reduction(last))


class ResNet101Levels(TorchvisionEncoder):
    """ResNet-101 whose middle stages stay fine and whose last stage is coarse and deep.

    The levels of our reconstruction of IPSNet (after the abstract of Song et al., Artif. Intell.
    Med. 2025): the middle level is a bare 1x1 reduction of layer2 and layer3 together, as in the
    few-shot networks that take "blocks 2 and 3"; the high level is layer4 as it is.

    Args:
        mid_channels: channels of the middle level.
    """

    stride = 4
    pad_multiple = 8
    strides = (2, 4, 4, 8)

    def __init__(self, mid_channels: int = 512) -> None:
        super().__init__()
        self.out_channels = 2048
        self.channels = (64, 256, mid_channels, 2048)
        self.backbone = ResNet101Backbone(stride=4, last_stride=2)
        self.reduction = nn.Conv2d(512 + 1024, mid_channels, 1, bias=False)

    def forward(self, image: Tensor) -> EncoderLevels:
        """Map (B, 1, H, W), multiples of 8, to stem, layer1, reduced layers 2 and 3, layer4."""
        stem, one, two, three, four = self.backbone(image.expand(-1, 3, -1, -1))
        return EncoderLevels(stem, one, self.reduction(torch.cat([two, three], 1)), four)


def build_encoder(name: str) -> nn.Module:
    """Build the compact ``resunet``, or the encoder of a paper.

    SSL-ALPNet's is ``resnet101`` (layer4 at stride 8 in 256 channels), CoW's ``resnet101_layer3``
    (layer3 at stride 4 in 512 channels), IPSNet's ``resnet101_levels`` (layer4 at stride 8, layer2
    and layer3 at stride 4). A ValueError says where no encoder is called so.
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


def _stage(
    in_channels: int, planes: int, blocks: int, stride: int, first_dilation: int, dilation: int
) -> nn.Sequential:
    layers = [Bottleneck(in_channels, planes, stride, first_dilation, project=True)]
    for _ in range(1, blocks):
        layers.append(Bottleneck(4 * planes, planes, 1, dilation, project=False))
    return nn.Sequential(*layers)
