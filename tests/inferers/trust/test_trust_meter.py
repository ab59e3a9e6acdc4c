from __future__ import annotations

import math

import pytest
import torch

from fsmis_components.inferers.trust import TrustMeter


def test_values() -> None:
    margins = torch.full((1, 1, 8, 8), -40.0)
    margins[..., :4, :4] = math.log(3)  # probability 3/4 in one of four cells, 0 elsewhere
    fitted = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    meter = TrustMeter(1, cell=4)
    meter.add(margins, fitted)
    (found,) = meter.result()
    assert found.certainty == pytest.approx(2 * 0.75 / (0.75 + 1))
    assert found.agreement == pytest.approx(1 / math.sqrt(2))


def test_slabs_add_up() -> None:
    torch.manual_seed(0)
    margins, fitted = 3 * torch.randn(7, 3, 17, 33), torch.rand(7, 3, 5, 9)
    whole, parts = TrustMeter(3, cell=4), TrustMeter(3, cell=4)
    whole.add(margins, fitted)
    for start, stop in ((0, 3), (3, 7)):
        parts.add(margins[start:stop], fitted[start:stop])
    for left, right in zip(whole.result(), parts.result(), strict=True):
        assert left.certainty == pytest.approx(right.certainty, rel=1e-6)
        assert left.agreement == pytest.approx(right.agreement, rel=1e-6)
