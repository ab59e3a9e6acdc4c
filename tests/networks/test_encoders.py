"""Encoders: every one gives the channels and the strides that it says; the compact one's levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fsmis_components.networks import build_encoder, encoders, resnet101

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
    for module in (encoders, resnet101):
        monkeypatch.setattr(module, "conv_norm", lambda x, conv, norm: norm(conv(x)))
    for level, expected in zip(found, net(image), strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())


def test_training_moves_statistics_and_reaches_every_weight() -> None:
    net = learned("resunet").train()
    before = net.stem[1].running_mean.clone()
    net(torch.randn(2, 1, 32, 48)).high.square().mean().backward()
    assert not torch.equal(net.stem[1].running_mean, before)
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_a_norm_without_statistics_norms_by_the_batch() -> None:
    conv, norm = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3, track_running_stats=False).eval()
    image = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(resnet101.conv_norm(image, conv, norm), norm(conv(image)))


def test_rejects_another_name() -> None:
    with pytest.raises(ValueError, match="'resnet101_layer3' or 'resnet101_levels', got 'vgg'"):
        build_encoder("vgg")
