"""The decision of pairs: sizes, trust in the query's own prototypes, exchange, what adds up."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.layers.interactive_prototypes import InteractivePrototypes
from fsmis_components.layers.pair_decision import FeatureExchange, PairDecision, PairMaps
from fsmis_components.layers.self_learning import SelfLearningDecoder
from fsmis_components.layers.self_support import SelfSupport

CHANNELS = (3, 5, 8, 4)  # edge, low, middle, high
STRIDE, MULTIPLE = 4, 8


class Pairs(NamedTuple):
    slices: list[Tensor]
    mean: Tensor
    peak: Tensor
    area: Tensor
    cells: Tensor | None
    image_size: tuple[int, int]


def pairs(size: tuple[int, int] = (33, 41), b: int = 2, q: int = 3) -> Pairs:
    """Features of an image of odd size, as an encoder gives them after padding to multiples."""
    torch.manual_seed(0)
    h, w = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    strides = (2, 4, STRIDE, STRIDE)
    slices = [
        torch.randn(b, c, h // stride, w // stride)
        for c, stride in zip(CHANNELS, strides, strict=True)
    ]
    mean, peak = torch.randn(b, q, 2, 8), torch.randn(b, q, 2, 4)
    return Pairs(slices, mean, peak, torch.full((b, q), 20.0), torch.randn(b, q, 6, 8), size)


def module(exchange: bool = False, learning: bool = True, trained: bool = True) -> PairDecision:
    """Return a decision; a trained one has a decoder and an exchange that do something."""
    torch.manual_seed(1)
    decoder = SelfLearningDecoder(CHANNELS, 4, (8, 8, 8)) if learning else None
    exchanged = FeatureExchange(8) if exchange else None
    if decoder is not None and trained:
        torch.nn.init.normal_(decoder.paths[0].last.weight)
    if exchanged is not None and trained:
        torch.nn.init.normal_(exchanged.value.weight)
    own = SelfSupport(grid=4) if learning else None
    prototypes = InteractivePrototypes(8, 4)
    return PairDecision(prototypes, own, decoder, exchanged, STRIDE, MULTIPLE)


def assert_same(found: PairMaps, expected: PairMaps) -> None:
    for entry, other in zip(found, expected, strict=True):
        torch.testing.assert_close(entry, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(33, 65), (64, 33), (40, 24)])
def test_maps_are_enlarged_with_the_padding_and_cropped(size: tuple[int, int]) -> None:
    h, w = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    maps = torch.randn(2, 3, h // STRIDE, w // STRIDE)
    whole = F.interpolate(maps, (h, w), mode="bilinear", align_corners=False)
    found = module().to_image(maps, size)
    torch.testing.assert_close(found, whole[:, :, : size[0], : size[1]])
    leading = module().to_image(maps[0].reshape(1, 3, 1, h // STRIDE, w // STRIDE), size)
    torch.testing.assert_close(leading, found[0].reshape(1, 3, 1, *size))


@pytest.mark.parametrize("size", [(33, 65), (64, 33)])
def test_shapes(size: tuple[int, int]) -> None:
    given = pairs(size)
    found = module()(*given)
    h, w = given.slices[2].shape[2:]
    for name in ("guidance", "mean_map", "peak_map", "intermediate", "own"):
        assert getattr(found, name).shape == (2, 3, h, w)
    for name in ("confident_foreground", "confident_background"):
        assert getattr(found, name).shape == (2, 3, h, w)
        assert getattr(found, name).dtype == torch.bool
    assert found.decided.shape == (2, 3, *size)
    assert found.trusted.shape == (2, 3) and found.trusted.dtype == torch.bool
    assert found.mean_tokens.shape == (2, 3, 2, 2, 8)
    assert found.peak_tokens.shape == (2, 3, 2, 2, 4)


def test_padding_gives_no_prototypes() -> None:
    """33 rows and 41 columns end in the ninth row and the eleventh column of cells."""
    found = module()(*pairs())
    for cells in (found.confident_foreground, found.confident_background):
        assert not cells[:, :, 9:].any() and not cells[:, :, :, 11:].any()


def test_without_self_learning_the_intermediate_answer_decides() -> None:
    net = module(learning=False)
    found = net(*pairs())
    assert torch.equal(found.own, found.intermediate)
    torch.testing.assert_close(found.decided, net.to_image(found.intermediate, (33, 41)))


def test_an_untrained_decoder_adds_nothing() -> None:
    net = module(trained=False)
    found = net(*pairs())
    assert torch.equal(found.decided, net.to_image(found.own, (33, 41)))
    assert not torch.allclose(found.own, found.intermediate, atol=0.1)


def test_decoder_adds_to_the_own_answer() -> None:
    given, net = pairs(), module()
    seen = []
    net.decoder.register_forward_hook(lambda part, inputs, output: seen.append((inputs, output)))
    found = net(*given)
    ((slices, answer, hints), added) = seen[0]
    torch.testing.assert_close(answer[:, :, 1] - answer[:, :, 0], found.own)
    assert all(one is other for one, other in zip(slices, given.slices, strict=True))
    torch.testing.assert_close(hints[:, :, 0], found.intermediate.sigmoid())
    torch.testing.assert_close(hints[:, :, 1], found.guidance.sigmoid())
    expected = net.to_image(found.own, (33, 41)) + net.to_image(added, (33, 41))
    torch.testing.assert_close(found.decided, expected)


def class_prototypes(net: PairDecision, given: Pairs) -> Tensor:
    """The prototypes of the classes after interaction."""
    inside = torch.zeros(1, 10, 12, dtype=torch.bool)
    inside[:, :9, :11] = True
    return net.prototypes(given.slices[2], given.slices[3], given.mean, given.peak, inside)[6]


@pytest.mark.parametrize(
    ("times", "trusted"),
    [(1.0, True), (4.0, True), (4.1, False), (100.0, False), (0.25, True), (0.24, False)],
)
def test_own_prototypes_are_used_where_the_areas_agree(times: float, trusted: bool) -> None:
    """B10: the support's structure is so many times as large as the query's sure foreground."""
    given, net = pairs(), module()
    area = net(*given).confident_foreground.flatten(2).sum(2).float()
    found = net(*given._replace(area=times * area))
    assert found.trusted.tolist() == [[trusted] * 3] * 2
    plain = net.prototypes.margins(given.slices[2], class_prototypes(net, given))
    assert torch.allclose(found.own, plain, atol=1e-4) == (not trusted)


def test_each_pair_is_trusted_alone() -> None:
    given, net = pairs(), module()
    area = net(*given).confident_foreground.flatten(2).sum(2).float()
    area[0, 1] *= 5
    area[1, 2] /= 5
    expected = [[True, False, True], [True, True, False]]
    assert net(*given._replace(area=area)).trusted.tolist() == expected


def test_structure_without_a_pixel_is_absent() -> None:
    given, net = pairs(), module()
    area = given.area.clone()
    area[1, 0] = 0
    found = net(*given._replace(area=area))
    assert torch.equal(found.decided[1, 0], torch.full((33, 41), -10.0))
    assert not found.trusted[1, 0]
    rest = net(*given).decided
    torch.testing.assert_close(found.decided[0], rest[0])
    torch.testing.assert_close(found.decided[1, 1:], rest[1, 1:])


@pytest.mark.parametrize("exchange", [True, False])
def test_pairs_and_slices_do_not_see_each_other(exchange: bool) -> None:
    given, net = pairs(), module(exchange)
    both = net(*given)
    for b in range(2):
        for q in range(3):
            alone = Pairs(
                [maps[b : b + 1] for maps in given.slices],
                *(entry[b : b + 1, q : q + 1] for entry in given[1:5]),
                given.image_size,
            )
            expected = net(*alone)
            assert_same(PairMaps(*(entry[b : b + 1, q : q + 1] for entry in both)), expected)


def test_exchange_comes_first() -> None:
    """What one pair answers is what a network without exchange answers to exchanged features."""
    given, net = pairs(b=1, q=1), module(exchange=True)
    exchanged = net.exchange(given.slices[2], given.cells[0])
    assert not torch.allclose(exchanged, given.slices[2], atol=0.1)
    found = net(*given)
    net.exchange = None
    slices = [*given.slices[:2], exchanged, given.slices[3]]
    assert_same(found, net(*given._replace(slices=slices)))


@pytest.mark.parametrize("exchange", [True, False])
def test_known_cells_and_whom_they_are_told(exchange: bool) -> None:
    given, net = pairs(), module(exchange)
    known = torch.zeros(2, 3, 10, 12, dtype=torch.bool)
    known[:, 0, 2:5, 1:6] = True
    known[:, 1:, 4:6, 3:9] = True
    alone = net(*given)
    told = net(*given, known, torch.tensor([False, True]))
    torch.testing.assert_close(told.mean_map[0], alone.mean_map[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(told.mean_map[1], alone.mean_map[1], atol=1e-2)
    both = net(*given, known, torch.tensor([True, True]))
    torch.testing.assert_close(both.mean_map[1], told.mean_map[1], atol=1e-4, rtol=1e-4)
    # the known cells of one structure do not reach another's
    known[1, 1:] = known[1, :1]
    other = net(*given, known, torch.tensor([False, True]))
    torch.testing.assert_close(other.mean_map[1, 0], told.mean_map[1, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(other.mean_map[1, 1], told.mean_map[1, 1], atol=1e-3)


@pytest.mark.parametrize("exchange", [True, False])
def test_scripts(exchange: bool) -> None:
    given, net = pairs(), module(exchange)
    assert_same(torch.jit.script(net)(*given), net(*given))


def test_gradients_reach_all_levels() -> None:
    given, net = pairs(), module(exchange=True)
    leaves = [maps.requires_grad_() for maps in given.slices]
    net(*given._replace(slices=leaves)).decided.square().sum().backward()
    for tensor in (*leaves, *net.parameters()):
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all())
    assert all(bool(leaf.grad.any()) for leaf in leaves)


def stirred_exchange(channels: int = 5, width: int = 7) -> FeatureExchange:
    torch.manual_seed(1)
    net = FeatureExchange(channels, width)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


def exchanged_slowly(net: FeatureExchange, features: Tensor, cells: Tensor) -> Tensor:
    """One query cell after the other."""
    answer = features.clone()
    for p in range(features.shape[0]):
        for y in range(features.shape[2]):
            for x in range(features.shape[3]):
                asked = net.query.weight @ features[p, :, y, x] + net.query.bias
                keys = cells[p] @ net.key.weight.T + net.key.bias
                share = torch.softmax(keys @ asked / keys.shape[1] ** 0.5, 0)
                answer[p, :, y, x] += share @ (cells[p] @ net.value.weight.T + net.value.bias)
    return answer


def test_untrained_exchange_changes_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, 33, 65)
    assert torch.equal(FeatureExchange(5)(features, torch.randn(2, 16, 5)), features)


def test_values_of_the_exchange() -> None:
    torch.manual_seed(0)
    net, features, cells = stirred_exchange(), torch.randn(2, 5, 3, 4), torch.randn(2, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(net(features, cells), exchanged_slowly(net, features, cells))


def test_gradients_of_the_exchange() -> None:
    untrained, features, cells = FeatureExchange(5), torch.randn(1, 5, 3, 3), torch.randn(1, 4, 5)
    untrained(features, cells).square().sum().backward()
    assert bool(untrained.value.weight.grad.any())  # so it can leave zero
    trained = stirred_exchange().double()
    features, cells = features.double().requires_grad_(), cells.double().requires_grad_()
    assert torch.autograd.gradcheck(trained, (features, cells))
