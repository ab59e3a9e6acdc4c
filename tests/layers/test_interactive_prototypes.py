"""Interactive prototypes: maps and tokens written out pair by pair, every kind of interaction."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.layers.interactive_prototypes import INTERACTIONS, InteractivePrototypes

MID, HIGH = 8, 12
BACKGROUND, FOREGROUND = 0, 1
SUPPORT, QUERY = 0, 1


class Pairs(NamedTuple):
    mid: Tensor
    high: Tensor
    mean: Tensor
    peak: Tensor
    inside: Tensor


def pairs(b: int = 2, q: int = 3, h: int = 9, w: int = 7) -> Pairs:
    torch.manual_seed(0)
    inside = torch.ones(1, h, w, dtype=torch.bool)
    inside[:, -1] = False
    return Pairs(
        torch.randn(b, MID, h, w),
        torch.rand(b, HIGH, h, w),
        torch.randn(b, q, 2, MID),
        torch.rand(b, q, 2, HIGH),
        inside,
    )


def module(interaction: str = "both", plain: bool = False, **changes: object):
    """Return a module; a plain one suppresses nothing, so its tokens are the prototypes."""
    torch.manual_seed(1)
    net = InteractivePrototypes(MID, HIGH, interaction=interaction, **changes)
    for part in (net.mean_interaction, net.peak_interaction):
        for layer in part.layers if part is not None and plain else []:
            layer.gamma_logit.data.fill_(-math.inf)
    return net


def margin(features: Tensor, prototypes: Tensor, scale: float = 10.0) -> Tensor:
    """The margin (h, w) of one slice (C, h, w) by prototypes (2, C)."""
    back, front = (F.cosine_similarity(features, p[:, None, None], dim=0) for p in prototypes)
    return scale * (front - back)


def own_mean(mid: Tensor, cells: Tensor) -> Tensor:
    return mid[:, cells].mean(1)


def own_peak(high: Tensor, cells: Tensor, kind: str) -> Tensor:
    values = high[:, cells].sort(1, descending=True)[0]
    if kind == "channel_max":
        return values[:, 0]
    return values[:, : max(4, round(0.05 * values.shape[1]))].mean(1)


def test_margins_by_hand() -> None:
    features = torch.tensor([[[[1.0, 3.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    prototypes = torch.tensor([[[[0.0, 2.0], [5.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]])
    net = InteractivePrototypes(4, 4, scale=20.0)
    found = net.margins(features, prototypes)
    # cosines (1, 0) and (0.6, 0.8); a prototype of zero is like nothing
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[20.0, -4.0], [-20.0, -12.0]]))


def test_support_alone() -> None:
    """No interaction: guidance by peaks, the mean map by means, half of each blended."""
    given = pairs()
    found = module("none")(*given)
    for b in range(2):
        for q in range(3):
            mean_map = margin(given.mid[b], given.mean[b, q])
            peak_map = margin(given.high[b], given.peak[b, q])
            torch.testing.assert_close(found.mean_map[b, q], mean_map)
            torch.testing.assert_close(found.peak_map[b, q], peak_map)
            torch.testing.assert_close(found.guidance[b, q], peak_map)
            torch.testing.assert_close(found.intermediate[b, q], (mean_map + peak_map) / 2)
    assert torch.equal(found.prototypes, given.mean)


def test_blend_is_learned() -> None:
    given, net = pairs(), module("none")
    net.blend.data.fill_(math.log(3))
    found = net(*given)
    expected = 0.75 * found.mean_map + 0.25 * found.peak_map
    torch.testing.assert_close(found.intermediate, expected)


@pytest.mark.parametrize("peak", ["channel_max", "topk_mean"])
def test_tokens(peak: str) -> None:
    """Query prototypes of the cells given: mean of both classes, `peak` and the top 5 %."""
    given, net = pairs(h=33), module(plain=True, peak=peak)
    front = torch.rand(2, 3, 33, 7) > 0.6
    back = ~front & given.inside
    means, peaks = net.tokens(*given[:4], front, back)
    assert means.shape == (2, 3, 2, 2, MID) and peaks.shape == (2, 3, 2, 2, HIGH)
    assert torch.equal(means[..., SUPPORT, :], given.mean)
    assert torch.equal(peaks[..., SUPPORT, :], given.peak)
    for b in range(2):
        for q in range(3):
            for k, cells, kind in ((BACKGROUND, back, "topk_mean"), (FOREGROUND, front, peak)):
                mean = own_mean(given.mid[b], cells[b, q])
                torch.testing.assert_close(means[b, q, k, QUERY], mean, atol=1e-6, rtol=1e-5)
                strongest = own_peak(given.high[b], cells[b, q], kind)
                torch.testing.assert_close(peaks[b, q, k, QUERY], strongest)


def test_preliminary_mask_gives_the_querys_prototypes() -> None:
    """Section 5 step by step: guidance, sure cells, tokens, prototypes of the classes, maps."""
    given = pairs()
    given = given._replace(peak=torch.randn_like(given.peak))  # so that some cells are sure
    found = module(plain=True)(*given)
    sure_pairs = 0
    for b in range(2):
        for q in range(3):
            probability = margin(given.high[b], given.peak[b, q]).sigmoid()
            front = (probability > 0.7) & given.inside[0]
            back = (probability < 0.4) & given.inside[0]
            if not (front.any() and back.any()):
                continue
            sure_pairs += 1
            own = [own_mean(given.mid[b], cells) for cells in (back, front)]
            means = (given.mean[b, q] + torch.stack(own)) / 2
            own = [
                own_peak(given.high[b], back, "topk_mean"),
                own_peak(given.high[b], front, "channel_max"),
            ]
            peaks = (given.peak[b, q] + torch.stack(own)) / 2
            close = {"atol": 1e-4, "rtol": 1e-4}
            torch.testing.assert_close(found.prototypes[b, q], means, **close)
            torch.testing.assert_close(found.mean_map[b, q], margin(given.mid[b], means), **close)
            torch.testing.assert_close(found.peak_map[b, q], margin(given.high[b], peaks), **close)
    assert sure_pairs > 2


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_which_map_interacts(interaction: str) -> None:
    given = pairs()
    found, alone = module(interaction, plain=True)(*given), module("none")(*given)
    assert torch.equal(found.guidance, alone.guidance)
    changed = {
        "mean": not torch.equal(found.mean_map, alone.mean_map),
        "peak": not torch.equal(found.peak_map, alone.peak_map),
    }
    assert changed == {name: interaction in (name, "both") for name in changed}
    # tokens are made in any case, for the loss
    assert torch.equal(found.mean_tokens, alone.mean_tokens)


def test_interaction_begins_with_suppression() -> None:
    given = pairs()
    found, plain = module()(*given), module(plain=True)(*given)
    assert not torch.allclose(found.mean_tokens, plain.mean_tokens)
    assert not torch.allclose(found.peak_tokens, plain.peak_tokens)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_support_share(share: float) -> None:
    given = pairs()
    found = module(plain=True, support_share=share)(*given)
    side = SUPPORT if share == 1 else QUERY
    torch.testing.assert_close(found.prototypes, found.mean_tokens[..., side, :])


def test_known_cells_replace_the_preliminary_mask_where_told() -> None:
    given, net = pairs(), module(plain=True)
    known = torch.zeros(2, 3, 9, 7, dtype=torch.bool)
    known[:, :, 2:4, 1:6] = True
    alone = net(*given)
    told = net(*given, known, torch.tensor([False, True]))
    assert torch.equal(told.guidance, alone.guidance)
    torch.testing.assert_close(told.mean_tokens[0], alone.mean_tokens[0])
    expected = net.tokens(*given[:4], known, given.inside & ~known)
    torch.testing.assert_close(told.mean_tokens[1], expected[0][1])
    torch.testing.assert_close(told.peak_tokens[1], expected[1][1])


@pytest.mark.parametrize("interaction", ["none", "mean", "loss"])
def test_without_high_features(interaction: str) -> None:
    given = pairs()
    given = given._replace(high=given.high[:, :0], peak=given.peak[..., :0])
    net = InteractivePrototypes(MID, 0, interaction=interaction)
    found = net(*given)
    torch.testing.assert_close(found.guidance[1, 2], margin(given.mid[1], given.mean[1, 2]))
    assert found.peak_tokens.shape == (2, 3, 2, 2, 0) and not found.peak_map.any()
    assert torch.equal(found.intermediate, found.mean_map)
    assert net.blend is None


def test_no_cell_of_a_class_stays_finite() -> None:
    """A class that no cell is of: a mean prototype of zero, the peak of the whole map."""
    given, net = pairs(), module()
    mid, high = given.mid.clone().requires_grad_(), given.high.clone().requires_grad_()
    given = given._replace(mid=mid, high=high)
    nothing = torch.zeros(2, 3, 9, 7, dtype=torch.bool)
    plain = module(plain=True).tokens(*given[:4], nothing, nothing)
    assert not plain[0][..., QUERY, :].any()
    torch.testing.assert_close(plain[1][1, 0, FOREGROUND, QUERY], given.high[1].mean((1, 2)))
    found = net(*given, nothing, torch.ones(2, dtype=torch.bool))
    assert all(bool(entry.isfinite().all()) for entry in found)
    found.intermediate.square().sum().backward()
    assert bool(mid.grad.isfinite().all()) and bool(high.grad.isfinite().all())


@pytest.mark.parametrize("side", [33, 65])
def test_pairs_and_slices_do_not_see_each_other(side: int) -> None:
    given, net = pairs(2, 2, side, 33), module()
    both = net(*given)
    assert both.intermediate.shape == (2, 2, side, 33)
    alone = Pairs(
        given.mid[1:], given.high[1:], given.mean[1:, :1], given.peak[1:, :1], given.inside
    )
    for entry, expected in zip(both, net(*alone), strict=True):
        torch.testing.assert_close(entry[1:, :1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_scripts(interaction: str) -> None:
    given, net = pairs(), module(interaction)
    known = torch.rand(2, 3, 9, 7) > 0.5
    for further in ((), (known, torch.tensor([True, False]))):
        found = torch.jit.script(net)(*given, *further)
        for entry, expected in zip(found, net(*given, *further), strict=True):
            torch.testing.assert_close(entry, expected)


def test_gradients_reach_features_prototypes_and_weights() -> None:
    given, net = pairs(), module()
    leaves = [entry.clone().requires_grad_() for entry in given[:4]]
    found = net(*leaves, given.inside)
    torch.manual_seed(2)
    (found.intermediate * torch.randn_like(found.intermediate)).sum().backward()
    for leaf in leaves:
        assert bool(leaf.grad.any()) and bool(leaf.grad.isfinite().all())
    assert net.blend.grad.item() != 0
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_rejects() -> None:
    with pytest.raises(ValueError, match="expected interaction in .*, got 'all'"):
        module("all")
    for interaction in ("peak", "both"):
        with pytest.raises(ValueError, match="needs peak prototypes"):
            InteractivePrototypes(MID, 0, interaction=interaction)
