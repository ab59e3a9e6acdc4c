"""Encoders: every one gives the channels and the strides that it says; the compact one's levels."""

from __future__ import annotations

import pytest
import torch

from fsmis_components.networks import build_encoder

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


@pytest.mark.parametrize("name", ["resunet", "resnet101_layer3", "resnet101_levels"])
def test_scripts(name: str) -> None:
    torch.manual_seed(0)
    net, image = build_encoder(name).eval(), torch.randn(1, 1, 16, 16)
    for found, expected in zip(torch.jit.script(net)(image), net(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_rejects_another_name() -> None:
    with pytest.raises(ValueError, match="'resnet101_layer3' or 'resnet101_levels', got 'vgg'"):
        build_encoder("vgg")
