"""ResNet-101 at the strides of the papers, which begins with COCO weights; levels of encoders."""

from typing import Dict, List, NamedTuple

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
    network can be out of date, and what is stored or trained is untouched.

    Args:
        x: (B, C, H, W).
        conv: a convolution without bias.
        norm: batch norm with running statistics.

    Returns:
        (B, C', H', W'), a new tensor, which the caller may write over.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return norm(conv(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)


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


class Stages(NamedTuple):
    """Outputs of the stem and of the stages of a ResNet-101; without layer4 four is three."""

    stem: Tensor
    one: Tensor
    two: Tensor
    three: Tensor
    four: Tensor


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

    def forward(self, image: Tensor) -> Stages:
        """Map (B, 3, H, W) to the stem (stride 2), layer1 (stride 4) and the later stages."""
        stem = F.relu(conv_norm(image, self.conv1, self.bn1), inplace=True)
        one = self.layer1(F.max_pool2d(stem, 3, 2, 1))
        two = self.layer2(one)
        three = self.layer3(two)
        return Stages(stem, one, two, three, self.layer4(three))


class TorchvisionEncoder(nn.Module):
    """An encoder whose ``backbone``, a :class:`ResNet101Backbone`, takes torchvision's weights."""

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
        backbone = self.get_submodule("backbone")
        wanted = backbone.state_dict()
        wrong = [
            name
            for name, w in wanted.items()
            if name not in weights or weights[name].shape != w.shape
        ]
        if wrong:
            raise ValueError(
                "ResNet101: expected a deeplabv3_resnet101 checkpoint with weights named "
                f"'backbone.*', got {len(state_dict)} entries; {len(wrong)} needed ones are "
                f"missing or of another shape, the first being 'backbone.{wrong[0]}'"
            )
        backbone.load_state_dict({name: weights[name] for name in wanted})
        taken = {prefix + name for name in wanted}
        return [name for name in state_dict if name not in taken]


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
        """Encode slices.

        Args:
            image: (B, 1, H, W), H and W multiples of the stride.

        Returns:
            edge (B, 64, H/2, W/2), low (B, 256, H/4, W/4), mid (B, 512, H/stride, W/stride) and
            high (B, out_channels, H/stride, W/stride).
        """
        stages = self.backbone(image.expand(-1, 3, -1, -1))
        return EncoderLevels(stages.stem, stages.one, stages.two, self.reduction(stages.four))


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
        """Encode slices.

        Args:
            image: (B, 1, H, W), H and W multiples of 8.

        Returns:
            edge (B, 64, H/2, W/2), low (B, 256, H/4, W/4), mid (B, mid_channels, H/4, W/4) and
            high (B, 2048, H/8, W/8).
        """
        stages = self.backbone(image.expand(-1, 3, -1, -1))
        mid = self.reduction(torch.cat([stages.two, stages.three], 1))
        return EncoderLevels(stages.stem, stages.one, mid, stages.four)


def _stage(
    in_channels: int, planes: int, blocks: int, stride: int, first_dilation: int, dilation: int
) -> nn.Sequential:
    layers = [Bottleneck(in_channels, planes, stride, first_dilation, project=True)]
    for _ in range(1, blocks):
        layers.append(Bottleneck(4 * planes, planes, 1, dilation, project=False))
    return nn.Sequential(*layers)
