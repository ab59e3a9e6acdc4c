"""Encoders: channels and strides as each says, names and dilations of torchvision's ResNet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.networks import build_encoder, encoders

CHANNELS = {
    "resunet": (32, 64, 128, 128),
    "resnet101": (64, 256, 512, 256),
    "resnet101_layer3": (64, 256, 512, 512),
    "resnet101_levels": (64, 256, 512, 2048),
}


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("size", [(64, 96), (272, 48)])
def test_levels_are_as_the_encoder_says(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):  # shapes alone, nothing is computed
        net = build_encoder(name).eval()
        levels = net(torch.empty(2, 1, *size))
    assert tuple(net.channels) == CHANNELS[name]
    for level, channels, stride in zip(levels, net.channels, net.strides, strict=True):
        assert level.shape == (2, channels, size[0] // stride, size[1] // stride)
    assert levels._fields == ("edge", "low", "mid", "high")
    assert net.out_channels == net.channels[3]
    assert all(net.pad_multiple % stride == 0 for stride in net.strides)


def learned(name: str) -> nn.Module:
    """An encoder whose batch norms have statistics and weights of their own."""
    torch.manual_seed(0)
    net = build_encoder(name)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net


@torch.no_grad()
@pytest.mark.parametrize("name", ["resunet", "resnet101_layer3"])
def test_evaluation_is_convolution_then_batch_norm(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, image = learned(name).eval(), torch.randn(2, 1, 32, 48)
    kept = {key: value.clone() for key, value in net.state_dict().items()}
    found = net(image)
    monkeypatch.setattr(encoders, "conv_norm", lambda x, conv, norm: norm(conv(x)))
    for level, expected in zip(found, net(image), strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())


def test_training_moves_statistics_and_reaches_every_weight() -> None:
    net = learned("resunet").train()
    before = net.stem[1].running_mean.clone()
    net(torch.randn(2, 1, 32, 48)).high.square().mean().backward()
    assert not torch.equal(net.stem[1].running_mean, before)
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_rejects_another_name() -> None:
    with pytest.raises(ValueError, match="'resnet101_layer3' or 'resnet101_levels', got 'vgg'"):
        build_encoder("vgg")


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


def test_ipsnets_levels_stage_by_stage() -> None:
    """Layer1 is the low level, layer2 and layer3 are reduced together, layer4 is the last."""
    torch.manual_seed(0)
    levels = build_encoder("resnet101_levels").eval()
    net, image = levels.backbone, torch.randn(1, 1, 16, 24)
    with torch.no_grad():
        stem = net.bn1(net.conv1(image.repeat(1, 3, 1, 1))).relu()
        one = net.layer1(F.max_pool2d(stem, 3, 2, 1))
        two = net.layer2(one)
        three = net.layer3(two)
        weight = levels.reduction.weight
        mid = F.conv2d(two, weight[:, :512]) + F.conv2d(three, weight[:, 512:])
        found = levels(image)
    for entry, expected in zip(found, (stem, one, mid, net.layer4(three)), strict=True):
        torch.testing.assert_close(entry, expected, atol=1e-4, rtol=1e-4)
    assert levels.reduction.bias is None


def dilations(net: nn.Module) -> dict[str, list[tuple[int, int]]]:
    """Stride and dilation of a stage's first block, and of its others."""
    found = {}
    for name, stage in net.backbone.named_children():
        if name.startswith("layer") and isinstance(stage, nn.Sequential):
            steps = [(block.conv2.stride[0], block.conv2.dilation[0]) for block in stage]
            assert len(set(steps[1:])) == 1
            assert all(block.conv2.padding == block.conv2.dilation for block in stage)
            assert stage[0].downsample[0].stride == stage[0].conv2.stride
            found[name] = steps[:2]
    return found


def test_stages_dilate_as_torchvisions() -> None:
    with torch.device("meta"):
        names = ("resnet101", "resnet101_layer3", "resnet101_levels")
        resnet, layer3, levels = (dilations(build_encoder(name)) for name in names)
    assert resnet == {
        "layer1": [(1, 1), (1, 1)],
        "layer2": [(2, 1), (1, 1)],
        "layer3": [(1, 1), (1, 2)],
        "layer4": [(1, 2), (1, 4)],
    }
    fine = {"layer1": [(1, 1), (1, 1)], "layer2": [(1, 1), (1, 2)], "layer3": [(1, 2), (1, 4)]}
    assert layer3 == fine
    # a stage with a stride of its own goes on with the dilation of the stage before
    assert levels == fine | {"layer4": [(2, 4), (1, 4)]}


def checkpoint() -> dict[str, Tensor]:
    """A checkpoint with a head, whose weights are all different."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) for name, shape in torchvision_layout().items()
    } | {"classifier.4.bias": torch.zeros(21)}


@pytest.mark.parametrize("name", ["resnet101", "resnet101_layer3", "resnet101_levels"])
def test_loads_a_checkpoint_without_its_heads_and_rejects_another(name: str) -> None:
    whole, net = checkpoint(), build_encoder(name)
    reduction = net.reduction.weight.clone()
    net.load_torchvision(whole)
    for entry, own in net.backbone.state_dict().items():
        assert torch.equal(own, whole[f"backbone.{entry}"].to(own.dtype))
    assert torch.equal(net.reduction.weight, reduction)
    whole["backbone.layer3.22.conv3.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"backbone\.layer3\.22\.conv3\.weight"):
        net.load_torchvision(whole)
