"""Mixed precision on whatever device the input is."""

from __future__ import annotations

import torch
from torch import nn

from fsmis_components.inferers import AutocastInferer


def test_casts_only_when_asked() -> None:
    network = nn.Linear(3, 2)
    assert AutocastInferer(amp=True)(torch.ones(1, 3), network).dtype == torch.bfloat16
    assert AutocastInferer(amp=False)(torch.ones(1, 3), network).dtype == torch.float32
