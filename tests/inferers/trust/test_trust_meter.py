from __future__ import annotations

import math

import pytest
import torch

from fsmis_components.inferers.trust import Measures, TrustMeter


def test_values() -> None:
    margins = torch.full((1, 1, 8, 8), -40.0)
    margins[..., :4, :4] = math.log(3)  # probability 3/4 in one of four cells, 0 elsewhere
    fitted = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    meter = TrustMeter(1, cell=4)
    meter.add(margins, fitted)
    (found,) = meter.result()
    assert found.certainty == pytest.approx(2 * 0.75 / (0.75 + 1))
    assert found.agreement == pytest.approx(1 / math.sqrt(2))


def test_structures_compete() -> None:
    margins = torch.zeros(1, 2, 4, 4)
    margins[:, 0], margins[:, 1] = math.log(2), math.log(5)  # probabilities 2/8, 5/8
    meter = TrustMeter(2, cell=4)
    meter.add(margins, torch.ones(1, 2, 1, 1))
    loser, winner = meter.result()
    assert loser == Measures(0.0, 0.0)
    assert winner.certainty == pytest.approx(2 * 0.625 / (0.625 + 1))
    assert winner.agreement == pytest.approx(1)


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


def test_nothing_found() -> None:
    meter = TrustMeter(1, cell=4)
    meter.add(torch.full((2, 1, 8, 8), -40.0), torch.zeros(2, 1, 2, 2))
    (found,) = meter.result()
    assert found.certainty == pytest.approx(0) and found.agreement == 0
