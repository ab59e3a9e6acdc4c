"""Fresh buffers start as NaN in the tests of operators."""

from collections.abc import Iterator

import pytest
import torch

from fsmis_components.ops.similarity import streamed


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
    monkeypatch.setattr(streamed, "_SIDE_CPU", 4)
    monkeypatch.setattr(streamed, "_SIDE_DEVICE", 4)
