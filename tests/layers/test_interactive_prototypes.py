"""Prototype interaction: the identity at first, its suppression alone, what sees what, learning."""

from __future__ import annotations

import math

import pytest
import torch

from fsmis_components.layers.interactive_prototypes import PrototypeInteraction, suppress

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
