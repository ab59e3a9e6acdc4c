"""IPSNet's deep module and decoder, written out once more on odd maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.ips_decoders import DeepModule, SelfLearningDecoder


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def attended(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Self-attention of tokens (L, C), one head after the other."""
    size = tokens.shape[1] // attention.num_heads
    projected = tokens @ attention.in_proj_weight.T + attention.in_proj_bias
    query, key, value = projected.chunk(3, 1)
    answers = []
    for head in range(attention.num_heads):
        own = slice(head * size, (head + 1) * size)
        share = torch.softmax(query[:, own] @ key[:, own].T / size**0.5, 1)
        answers.append(share @ value[:, own])
    return torch.cat(answers, 1) @ attention.out_proj.weight.T + attention.out_proj.bias


def test_unet_written_out() -> None:
    """Section 4 of the specification, steps 1 to 3, on odd maps."""
    net, top, mid = DeepModule(12, 6, 16), torch.randn(1, 12, 17, 9), torch.randn(1, 6, 33, 17)
    unet = net.unet
    with torch.no_grad():
        e0 = net.reduce(top)
        e1 = unet.down1(e0)
        e2 = unet.down2(e1)
        assert (e1.shape[2:], e2.shape[2:]) == ((9, 5), (5, 3))
        tokens = unet.norm(e2[0].flatten(1).T)
        e2 = e2 + attended(unet.attention, tokens).T.reshape(e2.shape)
        d1 = unet.up1(torch.cat([enlarged(e2, e1), e1], 1))
        d0 = unet.up0(torch.cat([enlarged(d1, e0), e0], 1))
        expected = unet.last(torch.cat([enlarged(d0, mid), unet.skip(mid)], 1))
        torch.testing.assert_close(net(top, mid), expected)


CHANNELS = (3, 5, 7, 6)  # edge, low, middle, high


def given(b: int = 2, q: int = 3) -> tuple[list[Tensor], Tensor, Tensor]:
    slices = [torch.randn(b, c, n, n + 2) for c, n in zip(CHANNELS, (17, 9, 9, 9), strict=True)]
    return slices, 3 * torch.randn(b, q, 2, 9, 11), torch.rand(b, q, 2, 9, 11)


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
    torch.manual_seed(1)
    net = SelfLearningDecoder(CHANNELS, 4, (16, 8, 8), low_level)
    torch.nn.init.normal_(net.paths[0].last.weight)  # it begins at zero
    slices, answer, hints = given()
    with torch.no_grad():
        found = net(slices, answer, hints)
        for b in range(2):
            own = [maps[b : b + 1] for maps in slices]
            for q in range(3):
                expected = slowly(net, own, answer[b, q : q + 1], hints[b, q : q + 1])
                torch.testing.assert_close(found[b, q], expected, atol=1e-4, rtol=1e-4)
