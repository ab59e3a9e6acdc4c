"""Fresh buffers start as NaN in the tests of operators."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_buffers_are_nan() -> Iterator[None]:
    """In deterministic mode PyTorch fills what torch.empty returns: no element is forgotten."""
    torch.set_deterministic_debug_mode("warn")
    assert torch.empty(1).isnan()
    yield
    torch.set_deterministic_debug_mode("default")
