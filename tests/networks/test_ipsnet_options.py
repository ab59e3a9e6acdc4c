"""IPSNet's options B1 to B10 of our specification, its warm-up and its loss terms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ipsnet_samples import WEIGHTS, LevelsEncoder, network, support_of, with_trained_decoder
from network_samples import episode
from torch import Tensor

from fsmis_components.losses import (
    EpisodeLoss,
    margin_cross_entropy,
    prototype_loss,
    soft_dice_loss,
)
from fsmis_components.networks import IPSNet

OPTIONS: list[dict[str, object]] = [
    *({"peak": kind} for kind in ("topk_mean", "argmax_vector", "argmax_similarity")),  # B1
    {"deep": "linear"},  # B2
    {"deep": "none", "interaction": "mean"},
    {"deep": "none", "interaction": "loss"},
    {"deep": "none", "interaction": "none", "feature_exchange": True},
    *({"interaction": kind} for kind in ("none", "mean", "peak", "loss")),  # B3
    {"interaction_layers": 2},
    {"feature_exchange": True},  # B4
    {"self_learning": False},  # B5
    {"self_learning": False, "feature_exchange": True, "peak": "topk_mean"},
    {"deep": "none", "interaction": "none", "self_learning": False},  # A0
    {"separation": "dual"},  # B6
    {"separation": "dual", "low_level": "none", "deep": "none", "interaction": "mean"},
    {"low_level": "none"},  # B7
    {"low_level": "low"},
    {"low_level_gate": False},
    {"adaptive_background": False},  # B8
    {"background_grid": 64},
    {"background_grid": 1, "feature_exchange": True},
    {"confidence": [0.99, 0.99]},  # B9
    {"confidence": (0.0, 0.0)},
    *({"support_share": share} for share in (0.0, 1.0)),  # B10
    *({"area_ratio": ratio} for ratio in (1.0, 1e6)),
    {"true_query_prototypes": False},
    {"warmup_steps": 0},
    {"scale": 20.0},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_every_option_trains_and_answers(changes: dict[str, object]) -> None:
    item, net = episode(n=2), network(**changes)
    out = net.train()(**item)
    assert set(out) == {"logits", *WEIGHTS}
    for name, term in out.items():
        assert bool(term.isfinite().all())
        assert term.shape == ((2, 3, 64, 64) if name == "logits" else (2,))
    EpisodeLoss(WEIGHTS)(out, item["label"]).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())
    torch.optim.SGD(net.parameters(), 1e-3).step()
    item.pop("label")
    logits = net.eval()(**item)
    assert logits.shape == (2, 3, 64, 64) and bool(logits.isfinite().all())
    assert logits[:, 1:].std() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"feature_exchange": True, "separation": "dual"},
        {"deep": "none", "interaction": "none", "self_learning": False},
        {"deep": "none", "interaction": "mean", "low_level": "none"},
        {"deep": "linear", "peak": "argmax_similarity", "adaptive_background": False},
    ],
    ids=str,
)
def test_networks_with_other_parts_script(changes: dict[str, object]) -> None:
    item, net = episode(b=1, s=2, n=2), network(**changes)
    item.pop("label")
    scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(**item), net(**item))
    query, state = net.encode(item["image"]), support_of(net, item)
    weights = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]])
    found = scripted.segment(scripted.encode(item["image"]), state, weights)
    torch.testing.assert_close(found, net.segment(query, state, weights))


def test_the_bare_network_compares_with_mean_prototypes() -> None:
    """A0 of the ladder in section 13: nothing but the mean prototypes of the middle level."""
    item = episode(b=1, s=1, n=1)
    item.pop("label")
    net = network(deep="none", interaction="none", self_learning=False)
    found = net(**item)[0, 1]
    share = F.avg_pool2d(item["support_label"][0], 4)[0]  # (1, h, w)
    support, query = net.encode(item["support_image"][0]).mid[0], net.encode(item["image"]).mid
    cosines = []
    for weights in (1 - share, share):
        mean = (support * weights).sum((1, 2)) / weights.sum()
        cosines.append(F.cosine_similarity(query, mean[None, :, None, None]))
    margin = 10 * (cosines[1] - cosines[0])
    expected = F.interpolate(margin[None], (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected[0, 0], atol=1e-4, rtol=1e-4)


SWITCHES = [
    *("feature_exchange", "self_learning", "low_level_gate", "adaptive_background"),
    "true_query_prototypes",
]


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["false", 0, None])
def test_switches_take_nothing_but_true_and_false(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"expected {name} True or False, got {value!r}"):
        network(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": (0.7,)}, r"two thresholds, got \[0.7\]"),
        ({"confidence": (0.7, 1.0)}, "thresholds in"),
        ({"deep": "none"}, "needs peak prototypes"),
        ({"deep": "deep"}, "expected kind in"),
        ({"deep_width": 10}, "a width that 4 divides"),
        ({"peak": "max"}, "expected kind in"),
        ({"interaction": "all"}, "expected interaction in"),
        ({"interaction_layers": 0}, "layers >= 1"),
        ({"separation": "paths"}, "expected separation in"),
        ({"low_level": "edge"}, "low_level in"),
        ({"decoder_widths": (8, 8)}, "three widths"),
        ({"support_share": 1.5}, r"support_share in \[0, 1\]"),
        ({"encoder": "vgg"}, "got 'vgg'"),
    ],
    ids=str,
)
def test_rejects(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**changes)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch):
    """Return a function that trains some steps and says for whom the label was used."""

    def run(net: IPSNet, steps: int, draws: tuple[float, ...] = (0.6, 0.3)) -> list[list[bool]]:
        monkeypatch.setattr(torch, "rand", lambda size, device: torch.tensor(draws, device=device))
        seen: list[list[bool]] = []
        handle = net.decision.register_forward_pre_hook(
            lambda part, given: seen.append(given[7].tolist())
        )
        for _ in range(steps):
            net.train()(**episode(b=2, s=1, n=1))
        handle.remove()
        return seen

    return run


def test_warm_up_falls_from_one_to_zero(told) -> None:
    """Probabilities 1, 3/4, 1/2, 1/4 and then 0, against draws of 0.6 and 0.3."""
    both, second, neither = [True, True], [False, True], [False, False]
    assert told(network(), 6) == [both, both, second, neither, neither, neither]
    assert told(network(), 6, (0.0, 0.9))[3:] == [[True, False], neither, neither]


def test_no_warm_up(told) -> None:
    assert told(network(warmup_steps=0), 2, (0.0, 0.5)) == [[False, False]] * 2


def test_warm_up_is_counted_in_training_alone_and_goes_with_the_weights(told) -> None:
    net, item = network(), episode(b=2, s=1, n=1)
    told(net, 2)
    item.pop("label")
    net.eval()(**item)
    assert net.state_dict()["steps"].item() == 2
    other = network(seed=1)
    other.load_state_dict(net.state_dict())
    assert told(other, 3) == [[False, True], [False, False], [False, False]]


def test_the_label_that_is_told_makes_the_querys_prototypes() -> None:
    """In the first step the tokens of the decision are those of the true mask."""
    item, net = episode(b=1, s=1, n=1), network().train()
    seen = []
    net.decision.register_forward_hook(lambda part, given, found: seen.append(found))
    out = net(**item)
    assert seen[0].mean_tokens.isfinite().all()
    torch.testing.assert_close(out["prototype_loss"], token_losses(seen[0]))


def test_pairs_of_all_shots_of_a_structure_are_told_its_label() -> None:
    item, net = episode(b=2, s=2, n=3), network().train()
    seen = []
    net.decision.register_forward_pre_hook(lambda part, given: seen.append(given[6]))
    net(**item)
    cells = F.avg_pool2d(item["label"], 4) > 0.5
    for structure in range(3):
        for shot in range(2):
            assert torch.equal(seen[0][:, 2 * structure + shot], cells[:, structure])


def token_losses(found) -> Tensor:
    return prototype_loss(found.mean_tokens) + prototype_loss(found.peak_tokens)


@pytest.mark.parametrize("true_query", [True, False])
def test_prototype_loss_pools_the_query_by_its_label(true_query: bool) -> None:
    """After the warm-up the decision's own tokens are others."""
    item = episode(b=2, s=2, n=2)
    net = network(true_query_prototypes=true_query, warmup_steps=0).train()
    net.steps += 1
    seen = []
    net.decision.register_forward_hook(lambda part, given, found: seen.append(found))
    loss = net(**item)["prototype_loss"]
    assert torch.allclose(loss, token_losses(seen[0])) == (not true_query)


@pytest.mark.parametrize(
    ("changes", "silent"),
    [
        ({}, []),
        ({"interaction": "none"}, ["prototype_loss"]),
        ({"deep": "none", "interaction": "none"}, ["guidance_loss", "prototype_loss"]),
        ({"deep": "none", "interaction": "mean"}, ["guidance_loss"]),
        ({"self_learning": False}, ["intermediate_loss", "self_loss"]),
    ],
    ids=str,
)
def test_terms_of_parts_that_are_off_are_zero(
    changes: dict[str, object], silent: list[str]
) -> None:
    # the swapped branch needs a query in which something is found
    out = network(**changes).train()(**episode(n=2))
    assert sorted(name for name in WEIGHTS if not out[name].any()) == silent


@pytest.mark.parametrize(
    ("interaction", "levels"),
    [("mean", ["mean"]), ("peak", ["peak"]), ("loss", ["mean", "peak"]), ("none", [])],
)
def test_prototype_loss_of_the_levels_that_interact(interaction: str, levels: list[str]) -> None:
    item = episode(b=1, s=1, n=1)
    net = network(interaction=interaction, true_query_prototypes=False).train()
    seen = []
    net.decision.register_forward_hook(lambda part, given, found: seen.append(found))
    loss = net(**item)["prototype_loss"]
    expected = torch.zeros(1)
    for level in levels:
        expected = expected + prototype_loss(getattr(seen[0], f"{level}_tokens"))
    torch.testing.assert_close(loss, expected)


def test_losses_of_the_maps() -> None:
    """Cross-entropy, background counting 0.1, and Dice of each map: averaged, then enlarged."""
    item, net = episode(b=2, s=2, n=2), with_trained_decoder(network()).train()
    seen = []
    net.decision.register_forward_hook(lambda part, given, found: seen.append(found))
    out = net(**item)
    for term, name in (
        ("intermediate_loss", "intermediate"),
        ("guidance_loss", "guidance"),
        ("self_loss", "own"),
    ):
        margins = getattr(seen[0], name).reshape(2, 2, 2, 16, 16).mean(2)
        margins = F.interpolate(margins, (64, 64), mode="bilinear", align_corners=False)
        expected = margin_cross_entropy(margins, item["label"], 0.1)
        expected = expected + soft_dice_loss(margins, item["label"])
        torch.testing.assert_close(out[term], expected)
    margins = seen[0].decided.reshape(2, 2, 2, 64, 64).mean(2)
    torch.testing.assert_close(out["logits"][:, 1:], margins)
    expected = margin_cross_entropy(margins, item["label"], 0.1)
    torch.testing.assert_close(out["query_loss"], expected)


def test_alignment_segments_the_support_by_the_prediction() -> None:
    """By hand for two shots; a structure that is not predicted is left out."""
    item, net = episode(b=1, s=2, n=2), network()
    margins = torch.full((1, 2, 64, 64), -1.0)
    margins[0, 0, 8:28, 12:40] = 1.0
    support, query = net.encode(item["support_image"][0]), net.encode(item["image"])
    found = net._alignment(support, query, margins, item["support_label"])
    share = F.avg_pool2d((margins[:, :1] > 0).float(), 4)[0]
    losses = []
    for shot in range(2):
        cosines = []
        for weights in (1 - share, share):
            mean = (query.mid[0] * weights).sum((1, 2)) / weights.sum()
            cosines.append(F.cosine_similarity(support.mid[shot], mean[:, None, None], 0))
        margin = 10 * (cosines[1] - cosines[0])[None, None]
        margin = F.interpolate(margin, (64, 64), mode="bilinear", align_corners=False)
        losses.append(margin_cross_entropy(margin, item["support_label"][:, shot, :1]))
    # the second structure's loss is zero
    torch.testing.assert_close(found, (losses[0] + losses[1]) / 4, atol=1e-4, rtol=1e-4)
    nothing = net._alignment(support, query, torch.full_like(margins, -1), item["support_label"])
    assert nothing.tolist() == [0.0]


def test_alignment_of_several_episodes() -> None:
    item, net = episode(b=2, s=2, n=2), network()
    margins = torch.rand(2, 2, 64, 64) - 0.5
    margins[1, 1] = -1
    whole = net._alignment(
        net.encode(item["support_image"].flatten(0, 1)),
        net.encode(item["image"]),
        margins,
        item["support_label"],
    )
    for i in range(2):
        support = net.encode(item["support_image"][i])
        own = margins[i : i + 1], item["support_label"][i : i + 1]
        alone = net._alignment(support, net.encode(item["image"][i : i + 1]), *own)
        torch.testing.assert_close(whole[i : i + 1], alone)
    assert whole[0] != whole[1]


def test_settings_that_a_stored_support_must_share() -> None:
    assert network(peak="topk_mean").support_settings() == {"peak": "topk_mean", "cells": 0}
    exchanging = network(feature_exchange=True)
    assert exchanging.support_settings() == {"peak": "channel_max", "cells": 4}
    cells = support_of(exchanging, episode(b=1, s=2, n=3))["cells"]
    assert cells.shape == (1, 1, 2, 16, 8)


def test_the_finer_upper_level_is_the_middle_one() -> None:
    """The U-Net's decoder ends at stride 4, finer than its level before; ResNet-101's does not."""
    swapped, straight = network(encoder="resunet"), network(encoder=LevelsEncoder())
    assert (swapped.swapped, swapped.stride) == (True, 4)
    assert (straight.swapped, straight.stride) == (False, 4)
    image = torch.randn(1, 1, 64, 64)
    levels = swapped.encoder(image)
    assert torch.equal(swapped.encode(image).mid, levels.high)
    torch.testing.assert_close(swapped.encode(image).high, swapped.deep(levels.mid, levels.high))
    levels = straight.encoder(image)
    assert torch.equal(straight.encode(image).mid, levels.mid)
    torch.testing.assert_close(straight.encode(image).high, straight.deep(levels.high, levels.mid))
