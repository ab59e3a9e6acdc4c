"""What the tests of operators share: their device, and buffers that start as NaN."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device", default="cpu"))


@pytest.fixture(autouse=True)
def fresh_buffers_are_nan() -> Iterator[None]:
    """In deterministic mode PyTorch fills what torch.empty returns: no element is forgotten."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
