"""Prototype interaction: the identity at first, its suppression alone, what sees what, learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fsmis_components.layers.prototype_interaction import PrototypeInteraction, suppress

BACKGROUND, FOREGROUND = 0, 1
SUPPORT, QUERY = 0, 1


def without_suppression(net: PrototypeInteraction) -> PrototypeInteraction:
    for layer in net.layers:
        layer.gamma_logit.data.fill_(-math.inf)
    return net


def stirred(channels: int) -> PrototypeInteraction:
    """Return a module whose every learned tensor but gamma is random: away from its start."""
    torch.manual_seed(1)
    net = PrototypeInteraction(channels)
    for name, parameter in net.named_parameters():
        if "gamma" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def test_identity_at_first_without_suppression() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(5, 2, 2, 12) * 7
    forced = PrototypeInteraction(12)
    assert not torch.equal(forced(tokens), tokens)
    assert torch.equal(without_suppression(forced)(tokens), tokens)
    # whatever the type embeddings have become: they stand beside the residual path
    torch.nn.init.normal_(forced.types)
    assert torch.equal(forced(tokens), tokens)
    with torch.no_grad():
        assert torch.equal(forced.eval()(tokens), tokens)


def test_suppression_by_hand() -> None:
    # background along x, so the foreground (3, 4) and (-1, 2) lose a tenth of x = 3 and nothing;
    # the foreground's mean is (1, 3): the background (1, 0) loses a tenth of (0.1, 0.3)
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [-1.0, 2.0]]])[None]
    expected = torch.tensor([[[0.99, -0.03], [0.99, -0.03]], [[2.7, 4.0], [-1.0, 2.0]]])[None]
    torch.testing.assert_close(suppress(tokens, torch.tensor(0.1)), expected)


@pytest.mark.parametrize("changed", [BACKGROUND, FOREGROUND])
def test_attention_stays_within_a_class(changed: int) -> None:
    net = without_suppression(stirred(8))
    tokens = torch.randn(3, 2, 2, 8, requires_grad=True)
    net(tokens)[1, changed, QUERY].sum().backward()
    seen = tokens.grad.abs().sum(-1) > 0  # (P, class, side)
    expected = torch.zeros(3, 2, 2, dtype=torch.bool)
    expected[1, changed] = True  # both sides of the own class and pair
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("tokens", [torch.zeros(2, 2, 2, 8), torch.ones(2, 2, 2, 8)])
@pytest.mark.parametrize("untrained", [True, False])
def test_zero_and_equal_tokens_stay_finite(tokens: Tensor, untrained: bool) -> None:
    net = PrototypeInteraction(8) if untrained else stirred(8)
    tokens = tokens.clone().requires_grad_()
    out = net(tokens)
    assert bool(out.isfinite().all())
    (out * torch.randn(8)).sum().backward()
    assert bool(tokens.grad.isfinite().all())
    gradients = [p.grad for p in net.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients)


def test_gradients_reach_every_parameter_after_one_step() -> None:
    """At first only the projections that begin at zero and gamma have one."""
    torch.manual_seed(0)
    net = PrototypeInteraction(8)
    tokens, aim = torch.randn(6, 2, 2, 8), torch.randn(6, 2, 2, 8)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    moving: list[set[str]] = []
    for _ in range(2):
        optimiser.zero_grad()
        (net(tokens) - aim).square().mean().backward()
        moving.append({name for name, p in net.named_parameters() if bool(p.grad.any())})
        optimiser.step()
    last = ("gamma_logit", "attention.out_proj.weight", "attention.out_proj.bias")
    last = (*last, "narrow.weight", "narrow.bias")
    assert moving[0] == {f"layers.0.{name}" for name in last}
    assert moving[1] == {name for name, _ in net.named_parameters()}


def test_computes_in_float32() -> None:
    net = stirred(8)
    tokens = torch.randn(3, 2, 2, 8).bfloat16()
    assert torch.equal(net(tokens), net(tokens.float()))
    gamma = torch.tensor(0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        suppressed, exchanged = suppress(tokens, gamma), net(tokens)
    assert torch.equal(suppressed, suppress(tokens.float(), gamma))
    assert exchanged.dtype == torch.float32  # the learned parts run in half, the tokens do not
    torch.testing.assert_close(exchanged, net(tokens), atol=0.1, rtol=0.02)
