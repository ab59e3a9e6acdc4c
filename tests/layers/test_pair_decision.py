"""The decision of pairs: sizes, trust in the query's own prototypes, what adds up, what is known.

The values of untrained parts are in networks/test_ipsnet, written out by our specification.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.layers.cell_masks import confident_cells
from fsmis_components.layers.interactive_prototypes import InteractivePrototypes, IPSFeatures
from fsmis_components.layers.ips_decoders import SelfLearningDecoder
from fsmis_components.layers.pair_decision import PairDecision, SelfSupport

CHANNELS = (3, 5, 8, 4)  # edge, low, middle, high
STRIDE, MULTIPLE = 4, 8

Pairs = tuple[IPSFeatures, Tensor, Tensor, Tensor]  # query, mean, peak, area


def pairs(size: tuple[int, int] = (33, 41), b: int = 2, q: int = 3) -> Pairs:
    """Features of an image of odd size, as an encoder gives them after padding to multiples."""
    torch.manual_seed(0)
    h, w = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    strides = (2, 4, STRIDE, STRIDE)
    maps = [torch.randn(b, c, h // s, w // s) for c, s in zip(CHANNELS, strides, strict=True)]
    mean, peak = torch.randn(b, q, 2, 8), torch.randn(b, q, 2, 4)
    return IPSFeatures(*maps, size), mean, peak, torch.full((b, q), 20.0)


def module(trained: bool = True) -> PairDecision:
    """Return a decision; a trained one has a decoder that does something."""
    torch.manual_seed(1)
    decoder = SelfLearningDecoder(CHANNELS, 4, (8, 8, 8))
    if trained:
        torch.nn.init.normal_(decoder.paths[0].last.weight)
    prototypes = InteractivePrototypes(8, 4)
    return PairDecision(prototypes, SelfSupport(grid=4), decoder, STRIDE, MULTIPLE)


@pytest.mark.parametrize("size", [(33, 65), (64, 33), (40, 24)])
def test_maps_are_enlarged_with_the_padding_and_cropped(size: tuple[int, int]) -> None:
    h, w = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    maps = torch.randn(2, 3, h // STRIDE, w // STRIDE)
    whole = F.interpolate(maps, (h, w), mode="bilinear", align_corners=False)
    torch.testing.assert_close(module().to_image(maps, size), whole[:, :, : size[0], : size[1]])
    found = module()(*pairs(size))
    assert found.self_support.shape == (2, 3, h // STRIDE, w // STRIDE)
    assert found.decided.shape == (2, 3, *size)


def sure_foreground(net: PairDecision, given: Pairs) -> Tensor:
    """Cells (B, Q) that give the query's own foreground prototype."""
    margin = net(*given).intermediate
    return confident_cells(margin.sigmoid(), net.inside(given[0]))[0].flatten(2).sum(2).float()


@pytest.mark.parametrize(
    ("times", "trusted"),
    [(4.0, True), (4.1, False), (0.25, True), (0.24, False)],
)
def test_own_prototypes_are_used_where_the_areas_agree(times: float, trusted: bool) -> None:
    """B10: the support's structure is so many times as large as the query's sure foreground."""
    given, net = pairs(), module()
    area = sure_foreground(net, given)
    same, found = net(*given[:3], area), net(*given[:3], times * area)
    assert torch.allclose(found.self_support, same.self_support, atol=1e-4) == trusted
    area[0, 1] *= times  # of one pair alone
    found = net(*given[:3], area).self_support
    assert torch.allclose(found[0, 1], same.self_support[0, 1], atol=1e-4) == trusted
    torch.testing.assert_close(found[1], same.self_support[1])


def test_known_cells_and_the_slices_where_they_are_used() -> None:
    given, net = pairs(), module()
    known = torch.zeros(2, 3, 10, 12, dtype=torch.bool)
    known[:, 0, 2:5, 1:6] = True
    known[:, 1:, 4:6, 3:9] = True
    one = torch.tensor([False, True])
    alone, used = net(*given), net(*given, known, one)
    assert torch.equal(used.guidance, alone.guidance)
    torch.testing.assert_close(used.intermediate[0], alone.intermediate[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(used.intermediate[1], alone.intermediate[1], atol=1e-2)
    # the known cells of one structure do not reach another's
    known[1, 1:] = known[1, :1]
    other = net(*given, known, one).intermediate
    torch.testing.assert_close(other[1, 0], used.intermediate[1, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other[1, 1], used.intermediate[1, 1], atol=1e-3)


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
            front = (front + given.prototypes[i, j, 1]) / 2
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
    [(32, (1, 1)), (4, (3, 2)), (1, (9, 7))],
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
    net = SelfSupport(grid=32)
    mixed, whole = net(*given._replace(trusted=trusted)), net(*given)
    torch.testing.assert_close(mixed[trusted], whole[trusted])
    plain = 10 * F.cosine_similarity(
        given.features[:, None, None], given.prototypes[..., None, None], dim=3
    )
    torch.testing.assert_close(mixed[~trusted], plain[~trusted])
