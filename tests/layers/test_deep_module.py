"""The deep module: written out once more, odd sizes, its size at our specification's numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.deep_module import DeepModule, double_conv, group_norm


def module(kind: str = "unet", width: int = 16) -> DeepModule:
    torch.manual_seed(0)
    return DeepModule(12, 6, width, kind)


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
    assert unet is not None
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


def test_linear_is_the_reduced_level_enlarged() -> None:
    net, top, mid = module("linear"), torch.randn(2, 12, 17, 9), torch.randn(2, 6, 33, 17)
    convolved = F.conv2d(top, net.reduce[0].weight, net.reduce[0].bias)
    expected = enlarged(F.group_norm(convolved, 2).relu(), mid)
    torch.testing.assert_close(net(top, mid), expected)
    assert net.unet is None


@pytest.mark.parametrize("kind", ["unet", "linear"])
@pytest.mark.parametrize("side", [1, 33, 65])
def test_features_lie_on_the_middle_grid_and_are_not_negative(kind: str, side: int) -> None:
    mid = torch.randn(2, 6, side, side + 2)
    high = module(kind)(torch.randn(2, 12, (side + 1) // 2, (side + 3) // 2), mid)
    assert high.shape == (2, 16, side, side + 2)
    assert high.min() >= 0 and bool(high.any())


def test_slices_of_a_batch_do_not_see_each_other() -> None:
    """Group norm, not batch norm: also in training."""
    net, top, mid = module().train(), torch.randn(2, 12, 9, 9), torch.randn(2, 6, 17, 17)
    torch.testing.assert_close(net(top, mid)[1:], net(top[1:], mid[1:]), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


def test_size_of_the_specification() -> None:
    """Section 11 says about 8 million for ResNet-101's 2,048 and 512 channels."""
    with torch.device("meta"):
        net = DeepModule(2048, 512)
        high = net(torch.empty(1, 2048, 32, 32), torch.empty(1, 512, 64, 64))
    assert high.shape == (1, 256, 64, 64)
    assert 7e6 < sum(p.numel() for p in net.parameters()) < 9e6


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 8), (8, 1), (12, 1), (4, 1)])
def test_groups(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_double_conv() -> None:
    torch.manual_seed(0)
    net, x = double_conv(3, 8, stride=2), torch.randn(1, 3, 33, 9)
    y = F.group_norm(F.conv2d(x, net[0].weight, None, 2, 1), 1).relu()
    expected = F.group_norm(F.conv2d(y, net[3].weight, None, 1, 1), 1).relu()
    assert expected.shape == (1, 8, 17, 5)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("kind", ["unet", "linear"])
def test_scripts(kind: str) -> None:
    net, top, mid = module(kind), torch.randn(1, 12, 5, 9), torch.randn(1, 6, 9, 17)
    torch.testing.assert_close(torch.jit.script(net)(top, mid), net(top, mid))


def test_gradients_reach_both_levels_and_all_weights() -> None:
    net = module()
    top = torch.randn(1, 12, 9, 9, requires_grad=True)
    mid = torch.randn(1, 6, 17, 17, requires_grad=True)
    net(top, mid).square().sum().backward()
    for tensor in (top, mid, *net.parameters()):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())
    assert bool(top.grad.any()) and bool(mid.grad.any())


def test_rejects() -> None:
    with pytest.raises(ValueError, match="expected kind in .*, got 'deep'"):
        module("deep")
    with pytest.raises(ValueError, match="a width that 4 divides, got 18"):
        module(width=18)
