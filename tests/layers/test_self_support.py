"""Self-support: the background of every cell made explicitly, SSP's formula, trust."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.layers.self_support import SelfSupport

BACKGROUND, FOREGROUND = 0, 1


class Query(NamedTuple):
    features: Tensor
    prototypes: Tensor
    foreground: Tensor
    background: Tensor
    trusted: Tensor


def query(b: int = 2, q: int = 3, h: int = 9, w: int = 7, channels: int = 5) -> Query:
    torch.manual_seed(0)
    drawn = torch.rand(b, q, h, w)
    return Query(
        torch.randn(b, channels, h, w),
        torch.randn(b, q, 2, channels),
        drawn > 0.8,
        drawn < 0.4,
        torch.ones(b, q, dtype=torch.bool),
    )


def field_means(features: Tensor, background: Tensor, high: int, wide: int) -> Tensor:
    """Means (K, C) of the sure cells of one slice, of those fields that have any."""
    means = []
    for y in range(0, features.shape[1], high):
        for x in range(0, features.shape[2], wide):
            sure = background[y : y + high, x : x + wide]
            if sure.any():
                means.append(features[:, y : y + high, x : x + wide][:, sure].mean(1))
    return torch.stack(means)


def slowly(given: Query, fields: tuple[int, int], global_share: float = 0.3) -> Tensor:
    """The answer by section 6.1 of the specification, with a map of background vectors."""
    b, q, h, w = given.foreground.shape
    answer = torch.zeros(b, q, 2, h, w)
    for i in range(b):
        for j in range(q):
            features = given.features[i]
            front = features[:, given.foreground[i, j]].mean(1)
            front = (front + given.prototypes[i, j, FOREGROUND]) / 2
            own = features[:, given.background[i, j]].mean(1)
            vectors = field_means(features, given.background[i, j], *fields)
            for y in range(h):
                for x in range(w):
                    cell = features[:, y, x]
                    weights = (2 * F.cosine_similarity(vectors, cell[None])).softmax(0)
                    back = global_share * own + (1 - global_share) * weights @ vectors
                    answer[i, j, 0, y, x] = 10 * F.cosine_similarity(cell, back, dim=0)
                    answer[i, j, 1, y, x] = 10 * F.cosine_similarity(cell, front, dim=0)
    return answer


@pytest.mark.parametrize(
    ("grid", "fields"),
    [(9, (1, 1)), (32, (1, 1)), (3, (3, 3)), (4, (3, 2)), (1, (9, 7))],
)
def test_the_background_of_every_cell(grid: int, fields: tuple[int, int]) -> None:
    """With a field for each cell this is SSP's formula; the last fields may be cut off."""
    given = query()
    found = SelfSupport(grid=grid)(*given)
    # pooling adds 1e-5 to the number of cells
    torch.testing.assert_close(found, slowly(given, fields), atol=1e-4, rtol=1e-4)


def test_where_not_trusted_the_given_prototypes_answer() -> None:
    given = query()
    trusted = torch.tensor([[True, False, True], [False, True, False]])
    net = SelfSupport()
    mixed, whole = net(*given._replace(trusted=trusted)), net(*given)
    torch.testing.assert_close(mixed[trusted], whole[trusted])
    plain = 10 * F.cosine_similarity(
        given.features[:, None, None], given.prototypes[..., None, None], dim=3
    )
    torch.testing.assert_close(mixed[~trusted], plain[~trusted])
