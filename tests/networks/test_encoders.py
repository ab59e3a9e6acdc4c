"""Encoders: sizes of the levels, and names and shapes of torchvision's checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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


@pytest.fixture(scope="module")
def layer3() -> ResNet101:
    """CoW's encoder."""
    torch.manual_seed(0)
    return build_encoder("resnet101_layer3").eval()


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


def test_layer3_levels(layer3: ResNet101) -> None:
    """The specification's 64 x 64 features of 512 channels are those of 256 x 256 pixels."""
    assert (layer3.stride, layer3.pad_multiple, layer3.out_channels) == (4, 4, 512)
    levels = layer3(torch.randn(1, 1, 36, 44))
    assert levels.low.shape == (1, 256, 9, 11)
    assert levels.mid.shape == (1, 512, 9, 11)
    assert levels.high.shape == (1, 512, 9, 11)
    scripted = torch.jit.script(layer3)
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(scripted(image).high, layer3(image).high)


def test_resnet101_has_torchvisions_names_and_shapes(resnet: ResNet101) -> None:
    expected = torchvision_layout()
    own = {k: tuple(v.shape) for k, v in resnet.state_dict().items() if k.startswith("backbone.")}
    assert own == expected
    assert sum(p.numel() for p in resnet.backbone.parameters()) == 42_500_160


def test_layer3_has_no_layer4(layer3: ResNet101) -> None:
    expected = {k: v for k, v in torchvision_layout().items() if "layer4" not in k}
    expected["reduction.weight"] = (512, 1024, 1, 1)
    assert {k: tuple(v.shape) for k, v in layer3.state_dict().items()} == expected
    # 42,500,160 less the 14,964,736 of layer4
    assert sum(p.numel() for p in layer3.backbone.parameters()) == 27_535_424
    assert sum(p.numel() for p in layer3.parameters()) == 27_535_424 + 512 * 1024


def test_layer3_begins_with_kaimings_reduction(layer3: ResNet101) -> None:
    """Normal with variance 2 / fan_out; 524,288 draws tell it from other rules."""
    weight = layer3.reduction.weight.detach()
    assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.01)
    assert (weight / weight.std()).pow(4).mean().item() == pytest.approx(3, rel=0.03)


def dilations(net: ResNet101) -> dict[str, list[tuple[int, int]]]:
    """Stride and dilation of a stage's first block, and of its others."""
    found = {}
    for name, stage in net.backbone.named_children():
        if name.startswith("layer") and isinstance(stage, nn.Sequential):
            steps = [(block.conv2.stride[0], block.conv2.dilation[0]) for block in stage]
            assert len(set(steps[1:])) == 1
            found[name] = steps[:2]
    return found


def test_resnet101_dilates_as_torchvision(resnet: ResNet101, layer3: ResNet101) -> None:
    assert dilations(resnet) == {
        "layer1": [(1, 1), (1, 1)],
        "layer2": [(2, 1), (1, 1)],
        "layer3": [(1, 1), (1, 2)],
        "layer4": [(1, 2), (1, 4)],
    }
    assert dilations(layer3) == {
        "layer1": [(1, 1), (1, 1)],
        "layer2": [(1, 1), (1, 2)],
        "layer3": [(1, 2), (1, 4)],
    }


def checkpoint() -> dict[str, Tensor]:
    return {name: torch.full(shape, 0.5) for name, shape in torchvision_layout().items()}


def test_loads_a_checkpoint_and_leaves_the_heads_out() -> None:
    net = ResNet101()
    left_out = net.load_torchvision(checkpoint() | {"classifier.4.bias": torch.zeros(21)})
    assert left_out == ["classifier.4.bias"]
    assert float(net.backbone.layer4[2].conv3.weight.flatten()[0]) == 0.5
    assert not bool((net.reduction.weight == 0.5).any())


def test_layer3_loads_a_whole_checkpoint() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = {
        name: torch.rand(shape, generator=generator) for name, shape in torchvision_layout().items()
    } | {"classifier.4.bias": torch.zeros(21)}
    net = build_encoder("resnet101_layer3")
    left_out = net.load_torchvision(whole)
    assert left_out == [name for name in whole if "layer4" in name or "classifier" in name]
    assert len(left_out) == 3 * 3 * 6 + 6 + 1
    for name, own in net.backbone.state_dict().items():
        assert torch.equal(own, whole[f"backbone.{name}"].to(own.dtype))
    short = {name: weight for name, weight in whole.items() if "layer4" not in name}
    assert net.load_torchvision(short) == ["classifier.4.bias"]
    with pytest.raises(ValueError, match=r"'backbone\.layer4\.0\.conv1\.weight'"):
        ResNet101().load_torchvision(short)


def test_rejects_another_layout() -> None:
    with pytest.raises(ValueError, match="expected stride 4 or 8 and last_stage 3 or 4, got 16"):
        ResNet101(stride=16)
    with pytest.raises(ValueError, match="got 8 and 2"):
        ResNet101(last_stage=2)


def test_rejects_another_checkpoint(resnet: ResNet101) -> None:
    broken = checkpoint()
    broken["backbone.layer3.22.conv3.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"backbone\.layer3\.22\.conv3\.weight"):
        resnet.load_torchvision(broken)
    with pytest.raises(ValueError, match="'resunet', 'resnet101' or 'resnet101_layer3', got 'vgg'"):
        build_encoder("vgg")
