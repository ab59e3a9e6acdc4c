"""Prototype interaction: the identity at first, its suppression alone, what sees what, learning."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
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


def opposite_directions(tokens: Tensor) -> Tensor:
    """Return u for each token (P, 2, 2, C), by the words of the specification."""
    units = torch.zeros_like(tokens)
    for k in (BACKGROUND, FOREGROUND):
        mean = (tokens[:, 1 - k, SUPPORT] + tokens[:, 1 - k, QUERY]) / 2
        units[:, k] = (mean / mean.norm(dim=-1, keepdim=True)).unsqueeze(1)
    return units


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


def test_untrained_it_is_suppression_alone() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(5, 2, 2, 12)
    expected = suppress(tokens, torch.tensor(0.1))
    torch.testing.assert_close(PrototypeInteraction(12)(tokens), expected)


def test_suppression_by_hand() -> None:
    # background along x, so the foreground (3, 4) and (-1, 2) lose a tenth of x = 3 and nothing;
    # the foreground's mean is (1, 3): the background (1, 0) loses a tenth of (0.1, 0.3)
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[3.0, 4.0], [-1.0, 2.0]]])[None]
    expected = torch.tensor([[[0.99, -0.03], [0.99, -0.03]], [[2.7, 4.0], [-1.0, 2.0]]])[None]
    torch.testing.assert_close(suppress(tokens, torch.tensor(0.1)), expected)


def test_suppression_lowers_positive_likeness_and_nothing_else() -> None:
    """Acceptance check 5 of the specification."""
    torch.manual_seed(0)
    tokens = torch.randn(200, 2, 2, 5, dtype=torch.float64)
    u = opposite_directions(tokens)
    before = F.cosine_similarity(tokens, u, dim=-1)
    after_tokens = suppress(tokens, torch.tensor(0.1, dtype=torch.float64))
    after = F.cosine_similarity(after_tokens, u, dim=-1)
    positive = before > 0
    assert 100 < positive.sum().item() < 700
    assert bool((after < before)[positive].all()) and bool((after > 0)[positive].all())
    assert torch.equal(after_tokens[~positive], tokens[~positive])
    # the formula of step 2
    length = tokens.norm(dim=-1, keepdim=True)
    written = tokens - 0.1 * before.clamp_min(0).unsqueeze(-1) * length * u
    torch.testing.assert_close(after_tokens, written)


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


def gap_episodes(number: int, seed: int) -> Tensor:
    """Draw prototypes of classes without likeness, bent as between two scanners.

    What both classes share grows, and the query's differ by a step in a fixed direction.
    """
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(number, 2, 1, 16, generator=generator).expand(-1, -1, 2, -1).clone()
    clean[..., 14:] = 0
    clean[..., 14] += 3
    clean[:, :, QUERY, 15] += 4
    return clean


def prototype_loss(tokens: Tensor) -> Tensor:
    """Section 5.6 of the specification, averaged over pairs."""
    within = 1 - F.cosine_similarity(tokens[:, :, SUPPORT], tokens[:, :, QUERY], dim=-1)
    between = F.cosine_similarity(tokens[:, FOREGROUND], tokens[:, BACKGROUND], dim=-1)
    return (within.sum(1) + between.clamp_min(0).sum(1)).mean()


def test_learns_to_close_the_gap_of_episodes_it_never_saw() -> None:
    unseen = gap_episodes(64, seed=1)
    torch.manual_seed(0)
    net = PrototypeInteraction(16)
    first = prototype_loss(net(unseen)).item()
    assert first < prototype_loss(unseen).item()  # suppression helps untrained
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(60):
        optimiser.zero_grad()
        prototype_loss(net(gap_episodes(32, seed=100 + step))).backward()
        optimiser.step()
    assert prototype_loss(net(unseen)).item() < 0.25 * first


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
