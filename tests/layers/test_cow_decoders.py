"""CoW's decoders beside the layers of the released code written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fsmis_components.layers.cow_decoders import MapFusion, MeanFusion, SelfPrediction
from fsmis_components.ops.precision import unit_vectors


def test_decoder_by_the_list_of_layers() -> None:
    torch.manual_seed(0)
    net = SelfPrediction(3, 4).eval()
    features, prototypes = torch.randn(1, 3, 20, 20), torch.randn(1, 2, 3)
    spread = prototypes[0, :, :, None, None].expand(2, 3, 20, 20)
    x = F.relu(net.join(torch.cat([features.expand(2, -1, -1, -1), spread, spread], 1)))
    for unit in net.residuals:
        x = x + unit.conv2(F.relu(unit.conv1(F.relu(x))))
    pooled = F.relu(net.pooled(F.adaptive_avg_pool2d(x, 1))).expand(-1, -1, 20, 20)
    branches = [F.relu(branch(x)) for branch in net.branches]
    assert [b.dilation[0] for b in net.branches] == [1, 6, 12, 18]
    expected = net.last(F.relu(net.merge(torch.cat([pooled, *branches], 1))))
    torch.testing.assert_close(net(features, prototypes)[0], expected[:, 0])


def explicit_maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    query, prototypes = torch.randn(1, 5, 6, 7), torch.randn(12, 5)
    maps = F.cosine_similarity(query, prototypes[:, :, None, None], dim=1, eps=1e-8)  # (12, 6, 7)
    return query, prototypes, maps[None]


def test_decoder_is_the_papers() -> None:
    """The released layers written out: 1x1 N+2 -> N, residual pair, 3x3, dropout, 1x1 -> 1."""
    _, _, maps = explicit_maps()
    net = MapFusion(12, 4).eval()
    x = F.relu(net.mixing(maps))
    x = x + F.relu(net.residual2(F.relu(net.residual1(x))))
    expected = net.last(F.relu(net.body(x)))[:, 0]
    torch.testing.assert_close(net(net.mixing(maps)), expected)
    assert all(module.bias is None for module in net.modules() if hasattr(module, "bias"))


def test_guided_init_is_the_scaled_mean() -> None:
    query, prototypes, maps = explicit_maps()
    net = MapFusion(12, 8, guided_init=True).eval()
    torch.nn.init.zeros_(net.residual2.weight)
    net.body.weight.data = net.body.weight.data.round()  # the identity without its noise
    found = net(torch.einsum("jc,bchw->bjhw", net.mix(prototypes), unit_vectors(query, 1)))
    torch.testing.assert_close(found, 20 * maps.mean(1), atol=1e-4, rtol=1e-4)
    mean = MeanFusion()
    plain = mean(torch.einsum("jc,bchw->bjhw", mean.mix(prototypes), unit_vectors(query, 1)))
    torch.testing.assert_close(plain, 20 * maps.mean(1))
