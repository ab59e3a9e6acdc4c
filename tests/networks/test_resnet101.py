"""ResNet-101: names and shapes of torchvision's checkpoint, dilations, levels of each method."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.networks import ResNet101, ResNet101Levels, build_encoder


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
    """The encoder of SSL-ALPNet."""
    return ResNet101().eval()


@pytest.fixture(scope="module")
def layer3() -> ResNet101:
    """The encoder of CoW."""
    torch.manual_seed(0)
    return build_encoder("resnet101_layer3").eval()


@pytest.fixture(scope="module")
def levels() -> ResNet101Levels:
    """The encoder of IPSNet."""
    torch.manual_seed(0)
    return build_encoder("resnet101_levels").eval()


def test_ipsnets_levels_stage_by_stage(levels: ResNet101Levels) -> None:
    """Layer1 is the low level, layer2 and layer3 are reduced together, layer4 is the last."""
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


def test_stages_dilate_as_torchvisions(
    resnet: ResNet101, layer3: ResNet101, levels: ResNet101Levels
) -> None:
    assert dilations(resnet) == {
        "layer1": [(1, 1), (1, 1)],
        "layer2": [(2, 1), (1, 1)],
        "layer3": [(1, 1), (1, 2)],
        "layer4": [(1, 2), (1, 4)],
    }
    fine = {"layer1": [(1, 1), (1, 1)], "layer2": [(1, 1), (1, 2)], "layer3": [(1, 2), (1, 4)]}
    assert dilations(layer3) == fine
    # a stage with a stride of its own goes on with the dilation of the stage before
    assert dilations(levels) == fine | {"layer4": [(2, 4), (1, 4)]}


def checkpoint() -> dict[str, Tensor]:
    """A checkpoint with a head, whose weights are all different."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) for name, shape in torchvision_layout().items()
    } | {"classifier.4.bias": torch.zeros(21)}


@pytest.mark.parametrize("name", ["resnet101", "resnet101_layer3", "resnet101_levels"])
def test_loads_a_checkpoint_and_leaves_the_heads_out(name: str) -> None:
    whole, net = checkpoint(), build_encoder(name)
    reduction = net.reduction.weight.clone()
    left_out = net.load_torchvision(whole)
    unused = ("layer4", "classifier") if name == "resnet101_layer3" else ("classifier",)
    assert left_out == [entry for entry in whole if any(part in entry for part in unused)]
    assert len(left_out) == (3 * 3 * 6 + 6 + 1 if name == "resnet101_layer3" else 1)
    for entry, own in net.backbone.state_dict().items():
        assert torch.equal(own, whole[f"backbone.{entry}"].to(own.dtype))
    assert torch.equal(net.reduction.weight, reduction)


def test_rejects_another_checkpoint(resnet: ResNet101, levels: ResNet101Levels) -> None:
    broken = checkpoint()
    broken["backbone.layer3.22.conv3.weight"] = torch.zeros(1)
    for net in (resnet, levels):
        with pytest.raises(ValueError, match=r"backbone\.layer3\.22\.conv3\.weight"):
            net.load_torchvision(broken)
