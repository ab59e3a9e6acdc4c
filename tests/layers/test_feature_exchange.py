"""Feature exchange: nothing at first, then plain attention of each query cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.layers.feature_exchange import FeatureExchange


def stirred(channels: int = 5, width: int = 7) -> FeatureExchange:
    torch.manual_seed(1)
    net = FeatureExchange(channels, width)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


def slowly(net: FeatureExchange, features: Tensor, cells: Tensor) -> Tensor:
    """One query cell after the other."""
    answer = features.clone()
    for p in range(features.shape[0]):
        for y in range(features.shape[2]):
            for x in range(features.shape[3]):
                asked = net.query.weight @ features[p, :, y, x] + net.query.bias
                keys = cells[p] @ net.key.weight.T + net.key.bias
                share = torch.softmax(keys @ asked / keys.shape[1] ** 0.5, 0)
                answer[p, :, y, x] += share @ (cells[p] @ net.value.weight.T + net.value.bias)
    return answer


def test_untrained_it_changes_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, 33, 65)
    assert torch.equal(FeatureExchange(5)(features, torch.randn(2, 16, 5)), features)


def test_values() -> None:
    torch.manual_seed(0)
    net, features, cells = stirred(), torch.randn(2, 5, 3, 4), torch.randn(2, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(net(features, cells), slowly(net, features, cells))


@pytest.mark.parametrize("side", [33, 65])
def test_pairs_do_not_see_each_other(side: int) -> None:
    torch.manual_seed(0)
    net, features, cells = stirred(), torch.randn(2, 5, side, side + 2), torch.randn(2, 9, 5)
    both = net(features, cells)
    assert both.shape == features.shape
    torch.testing.assert_close(both[1:], net(features[1:], cells[1:]))


def test_gradients() -> None:
    untrained, features, cells = FeatureExchange(5), torch.randn(1, 5, 3, 3), torch.randn(1, 4, 5)
    untrained(features, cells).square().sum().backward()
    assert bool(untrained.value.weight.grad.any())  # so it can leave zero
    trained = stirred().double()
    features, cells = features.double().requires_grad_(), cells.double().requires_grad_()
    assert torch.autograd.gradcheck(trained, (features, cells))


def test_scripts() -> None:
    net, features, cells = stirred(), torch.randn(2, 5, 33, 7), torch.randn(2, 6, 5)
    torch.testing.assert_close(torch.jit.script(net)(features, cells), net(features, cells))
