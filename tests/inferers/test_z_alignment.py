import numpy as np
import pytest
import torch
from torch import Tensor

from fsmis_components.inferers.z_alignment import align


def looks(places: np.ndarray) -> Tensor:
    """Descriptors of scans whose looks change smoothly along z."""
    centres = np.linspace(-30, 60, 60)
    return torch.from_numpy(np.exp(-((places[:, None] - centres) ** 2) / 8)).float()


@pytest.mark.parametrize(
    ("query", "support", "slope", "offset"),
    [
        (30, 30, 1.0, 0.0),
        (30, 36, 1.0, 4.0),  # the support begins earlier
        (36, 30, 1.0, -5.0),  # the query shows more of the body
        (15, 34, 1.0, 16.0),  # half a scan
        (30, 30, -1.0, 29.0),  # from head to foot
    ],
)
@pytest.mark.parametrize("scanner", [0.0, 0.5])
def test_finds_the_line(
    query: int, support: int, slope: float, offset: float, scanner: float
) -> None:
    places = slope * np.arange(query) + offset
    # what another scanner adds to all slices does not count
    found = align(looks(places) + scanner, looks(np.arange(float(support))))
    assert found.slope == pytest.approx(slope)
    assert np.abs(found.positions - places).max() <= 0.5


@pytest.mark.parametrize(("query", "support"), [(1, 1), (1, 20), (20, 1), (2, 3), (2, 1)])
def test_few_slices(query: int, support: int) -> None:
    for descriptors in (looks, lambda places: torch.ones(len(places), 4)):
        found = align(*(descriptors(np.arange(float(depth))) for depth in (query, support)))
        assert found.positions.shape == (query,) and np.isfinite(found.positions).all()
        assert np.isfinite(found.similarity)


def test_other_descriptors_overrule_only_where_they_clearly_differ() -> None:
    places, support = np.arange(20.0), np.arange(40.0)
    own = looks(places + 5), looks(support)

    def offset(of_own: tuple[Tensor, Tensor], other: float) -> float:
        beside = looks(places + other), looks(support)
        return float(align(*of_own, beside=beside).positions[0])

    assert offset(own, 5.0) == 5  # both say so
    assert offset(own, 5.5) == 5  # a little beside it
    blind = torch.ones(20, 4), torch.ones(40, 4)
    assert offset(blind, 15.0) == 15


def test_overlap_is_at_least_half_of_the_shorter_stack() -> None:
    # one pair of alike slices at the ends must not decide
    query, support = torch.eye(40)[:20], torch.eye(40)[20:]
    support[19] = query[0]
    inside = align(query, support).positions
    assert ((inside >= 0) & (inside <= 19)).sum() >= 10
