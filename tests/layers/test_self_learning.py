"""The self-learning decoder: nothing at first, then the plain decoder pair by pair."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.layers.self_learning import SelfLearningDecoder

CHANNELS = (3, 5, 7, 6)  # edge, low, middle, high


def decoder(
    low_level: bool = True, channels: tuple[int, int, int, int] = CHANNELS
) -> SelfLearningDecoder:
    """Return one whose last weights have left zero."""
    torch.manual_seed(1)
    net = SelfLearningDecoder(channels, 4, (16, 8, 8), low_level)
    for path in net.paths:
        torch.nn.init.normal_(path.last.weight)
    return net


def sides(side: int) -> list[int]:
    """Of the edge, low, middle and high level of an image four times the middle one."""
    return [2 * side - 1, side, side, side]


def given(side: int = 9, b: int = 2, q: int = 3) -> tuple[list[Tensor], Tensor, Tensor]:
    torch.manual_seed(0)
    slices = [torch.randn(b, c, n, n + 2) for c, n in zip(CHANNELS, sides(side), strict=True)]
    return slices, 3 * torch.randn(b, q, 2, side, side + 2), torch.rand(b, q, 2, side, side + 2)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def slowly(net: SelfLearningDecoder, slices: list[Tensor], answer: Tensor, hints: Tensor) -> Tensor:
    """Sections 6.2 and 6.3 of the specification for one pair; answer and hints (1, 2, h, w)."""
    edge, low, mid, high = slices
    s = answer.softmax(1)[:, 1:]
    width = net.split.weight.shape[0] // 2
    front = F.conv2d(mid, net.split.weight[:width], net.split.bias[:width]) * s
    back = F.conv2d(mid, net.split.weight[width:], net.split.bias[width:]) * (1 - s)
    gate = 1 + 4 * s * (1 - s)
    path = net.paths[0]
    x = torch.cat([front, back, answer, hints], 1)
    weight = path.own.weight
    if path.shared is not None:
        x = torch.cat([x, F.conv2d(high, path.reduce.weight, path.reduce.bias)], 1)
        weight = torch.cat([weight, path.shared.weight], 1)
    x = path.norm(F.conv2d(x, weight, padding=1)).relu()
    if net.low is not None:
        x = torch.cat([enlarged(x, low), net.low(low) * enlarged(gate, low)], 1)
    x = path.body(x)
    if net.edge is not None:
        x = path.finest(torch.cat([enlarged(x, edge), net.edge(edge) * enlarged(gate, edge)], 1))
    return F.conv2d(x, path.last.weight)[0, 0]


@pytest.mark.parametrize("low_level", [True, False])
def test_values(low_level: bool) -> None:
    net = decoder(low_level)
    slices, answer, hints = given()
    with torch.no_grad():
        found = net(slices, answer, hints)
        for b in range(2):
            own = [maps[b : b + 1] for maps in slices]
            for q in range(3):
                expected = slowly(net, own, answer[b, q : q + 1], hints[b, q : q + 1])
                torch.testing.assert_close(found[b, q], expected, atol=1e-4, rtol=1e-4)
