"""SSP: the decoder of the released code, its first convolution taken apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fsmis_components.layers.self_prediction import SelfPrediction


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
