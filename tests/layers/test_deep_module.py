"""The deep module: written out once more, odd sizes, its size at our specification's numbers."""

from __future__ import annotations

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
