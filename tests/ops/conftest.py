"""Fresh buffers start as NaN in the tests of operators."""

from collections.abc import Iterator

import pytest
import torch

from fsmis_components.ops.similarity import shared, streamed


@pytest.fixture(autouse=True)
def fresh_buffers_are_nan() -> Iterator[None]:
    """In deterministic mode PyTorch fills what torch.empty returns: no element is forgotten."""
    torch.set_deterministic_debug_mode("warn")
    assert torch.empty(1).isnan()
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that the sizes of the tests need several along every axis."""
    monkeypatch.setattr(streamed, "_TILE_CPU", 40)
    monkeypatch.setattr(streamed, "_TILE_DEVICE", 40)
    monkeypatch.setattr(streamed, "_POSITIONS", 4)
    monkeypatch.setattr(streamed, "_PROTOTYPES", 3)
    for place in ("CPU", "DEVICE"):
        monkeypatch.setattr(shared, f"_POSITIONS_{place}", 4)
        monkeypatch.setattr(shared, f"_PROTOTYPES_{place}", 3)
