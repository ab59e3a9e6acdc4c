from __future__ import annotations

import numpy as np
import pytest

from fsmis_components.evaluation.dice import dice


def test_values() -> None:
    predicted = np.array([[1, 1, 0], [0, 1, 0]], bool)
    labelled = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert dice(predicted, labelled) == pytest.approx(100 * 2 * 2 / 6)
    assert dice(predicted, predicted) == 100
    assert dice(predicted, ~predicted) == 0
    assert np.isnan(dice(predicted & False, predicted & False))


def test_rejects_other_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        dice(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
