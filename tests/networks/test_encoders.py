"""Encoders: sizes of the levels, and names and shapes of torchvision's checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.networks import ResNet101, ResUNet, build_encoder


def torchvision_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of deeplabv3_resnet101's backbone, written down from its architecture."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 64, 3, 7, 7)
    norm("bn1", 64)
    channels = 64
    for layer, (blocks, planes) in enumerate(((3, 64), (4, 128), (23, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            conv(f"{name}.conv1", planes, channels, 1, 1)
            conv(f"{name}.conv2", planes, planes, 3, 3)
            conv(f"{name}.conv3", 4 * planes, planes, 1, 1)
            norm(f"{name}.bn1", planes)
            norm(f"{name}.bn2", planes)
            norm(f"{name}.bn3", 4 * planes)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * planes, channels, 1, 1)
                norm(f"{name}.downsample.1", 4 * planes)
            channels = 4 * planes
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def resnet() -> ResNet101:
    return ResNet101().eval()


def test_resunet_levels() -> None:
    net = ResUNet().eval()
    levels = net(torch.randn(2, 1, 64, 96))
    assert levels.low.shape == (2, 32, 32, 48)
    assert levels.mid.shape == (2, 128, 8, 12)
    assert levels.high.shape == (2, 128, 16, 24)
    assert 3e6 < sum(p.numel() for p in net.parameters()) < 5e6


def test_resnet101_levels(resnet: ResNet101) -> None:
    levels = resnet(torch.randn(1, 1, 64, 72))
    assert levels.low.shape == (1, 256, 16, 18)
    assert levels.mid.shape == (1, 512, 8, 9)
    assert levels.high.shape == (1, 256, 8, 9)


def test_resnet101_has_torchvisions_names_and_shapes(resnet: ResNet101) -> None:
    expected = torchvision_layout()
    own = {k: tuple(v.shape) for k, v in resnet.state_dict().items() if k.startswith("backbone.")}
    assert own == expected
    assert sum(p.numel() for p in resnet.backbone.parameters()) == 42_500_160


def test_resnet101_dilates_as_torchvision(resnet: ResNet101) -> None:
    backbone = resnet.backbone
    found = {
        name: [(block.conv2.stride[0], block.conv2.dilation[0]) for block in stage][:2]
        for name, stage in backbone.named_children()
        if name.startswith("layer")
    }
    assert found["layer2"] == [(2, 1), (1, 1)]
    assert found["layer3"] == [(1, 1), (1, 2)]
    assert found["layer4"] == [(1, 2), (1, 4)]


def checkpoint() -> dict[str, Tensor]:
    return {name: torch.full(shape, 0.5) for name, shape in torchvision_layout().items()}


def test_loads_a_checkpoint_and_leaves_the_heads_out() -> None:
    net = ResNet101()
    left_out = net.load_torchvision(checkpoint() | {"classifier.4.bias": torch.zeros(21)})
    assert left_out == ["classifier.4.bias"]
    assert float(net.backbone.layer4[2].conv3.weight.flatten()[0]) == 0.5
    assert not bool((net.reduction.weight == 0.5).any())


def test_rejects_another_checkpoint(resnet: ResNet101) -> None:
    broken = checkpoint()
    broken["backbone.layer3.22.conv3.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"backbone\.layer3\.22\.conv3\.weight"):
        resnet.load_torchvision(broken)
    with pytest.raises(ValueError, match="expected 'resunet' or 'resnet101'"):
        build_encoder("vgg")
