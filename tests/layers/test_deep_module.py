"""The deep module: written out once more, odd sizes, its size at our specification's numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.deep_module import DeepModule


def module(width: int = 16) -> DeepModule:
    torch.manual_seed(0)
    return DeepModule(12, 6, width)


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
    net, top, mid = module(), torch.randn(1, 12, 17, 9), torch.randn(1, 6, 33, 17)
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


@pytest.mark.parametrize("side", [1, 33, 65])
def test_features_lie_on_the_middle_grid_and_are_not_negative(side: int) -> None:
    mid = torch.randn(2, 6, side, side + 2)
    high = module()(torch.randn(2, 12, (side + 1) // 2, (side + 3) // 2), mid)
    assert high.shape == (2, 16, side, side + 2)
    assert high.min() >= 0 and bool(high.any())


def test_size_of_the_specification() -> None:
    """Section 11 says about 8 million for ResNet-101's 2,048 and 512 channels."""
    with torch.device("meta"):
        net = DeepModule(2048, 512)
        high = net(torch.empty(1, 2048, 32, 32), torch.empty(1, 512, 64, 64))
    assert high.shape == (1, 256, 64, 64)
    assert 7e6 < sum(p.numel() for p in net.parameters()) < 9e6


def test_gradients_reach_both_levels_and_all_weights() -> None:
    net = module()
    top = torch.randn(1, 12, 9, 9, requires_grad=True)
    mid = torch.randn(1, 6, 17, 17, requires_grad=True)
    net(top, mid).square().sum().backward()
    for tensor in (top, mid, *net.parameters()):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())
    assert bool(top.grad.any()) and bool(mid.grad.any())
