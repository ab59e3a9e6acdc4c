"""IPSNet: the acceptance checks of our specification, and its corner cases.

Check 5, suppression alone, is in test_interactive_prototypes. What all networks promise is in
test_contract, what the options do in test_ipsnet_options.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from ipsnet_samples import (
    WEIGHTS,
    network,
    support_of,
    without_suppression,
)
from network_samples import disc, episode
from torch import Tensor

from fsmis_components.losses import EpisodeLoss
from fsmis_components.networks import IPSNet, ResUNet


@pytest.mark.parametrize(("size", "cells"), [(256, 64), (257, 66)])
def test_sizes_of_the_specification(size: int, cells: int) -> None:
    """Check 1 at full size; 257 pixels are padded to 264, so they give 66 cells and not 65."""
    with torch.device("meta"):  # shapes alone, nothing is computed
        net = IPSNet().eval()
        found = net.encode(torch.empty(1, 1, size, size))
    assert found.edge.shape == (1, 64, 2 * cells, 2 * cells)
    assert found.low.shape == (1, 256, cells, cells)
    assert found.mid.shape == (1, 512, cells, cells)
    assert found.high.shape == (1, 256, cells, cells)
    # section 11: near 55 million parameters
    assert 54e6 < sum(p.numel() for p in net.parameters()) < 57e6


def mean_of(features: Tensor, weights: Tensor) -> Tensor:
    weights = weights.float()
    return (features * weights).sum((1, 2)) / (weights.sum() + 1e-5)


def strongest(features: Tensor, cells: Tensor, share: float) -> Tensor:
    values = features[:, cells].sort(1, descending=True)[0]
    return values[:, : max(4, round(share * values.shape[1]))].mean(1)


def sure_cells(probability: Tensor, threshold: float) -> Tensor:
    sure = probability > threshold
    if not sure.any():
        count = max(4, math.ceil(0.002 * probability.numel()))
        sure = probability >= probability.flatten().sort(descending=True)[0][count - 1]
    return sure


def margin_to(features: Tensor, back: Tensor, front: Tensor) -> Tensor:
    """Ten times the difference of cosines; prototypes (C,) or one for each cell, (C, h, w)."""
    back, front = (p if p.dim() == 3 else p[:, None, None] for p in (back, front))
    return 10 * (F.cosine_similarity(features, front, 0) - F.cosine_similarity(features, back, 0))


def answer_by_the_specification(net: IPSNet, item: dict[str, Tensor]) -> Tensor:
    """The margin (H, W) of sections 4 to 6.1, without interaction and without a decoder."""
    support, query = net.encode(item["support_image"][0]), net.encode(item["image"])
    mask = item["support_label"][0, 0, 0]
    h, w = (4 * side for side in support.mid.shape[2:])
    padded = F.pad(mask, [0, w - mask.shape[1], 0, h - mask.shape[0]])
    share = F.avg_pool2d(padded[None, None], 4)[0, 0]
    front = share > 0.5
    m_s, h_s, m_q, h_q = support.mid[0], support.high[0], query.mid[0], query.high[0]

    mean = [mean_of(m_s, 1 - share), mean_of(m_s, share)]
    peak = [strongest(h_s, ~front, 0.05), h_s[:, front].amax(1)]
    guided = margin_to(h_q, *peak).sigmoid()
    sure = [sure_cells(1 - guided, 0.6), sure_cells(guided, 0.7)]
    # half of the support's and half of the query's
    mean = [(mean[k] + mean_of(m_q, sure[k])) / 2 for k in (0, 1)]
    own = [strongest(h_q, sure[0], 0.05), h_q[:, sure[1]].amax(1)]
    peak = [(peak[k] + own[k]) / 2 for k in (0, 1)]
    first = ((margin_to(m_q, *mean) + margin_to(h_q, *peak)) / 2).sigmoid()

    sure = [sure_cells(1 - first, 0.6), sure_cells(first, 0.7)]
    foreground = (mean[1] + mean_of(m_q, sure[1])) / 2
    vectors = m_q[:, sure[0]]  # (C, K)
    alike = F.normalize(vectors, dim=0).T @ F.normalize(m_q, dim=0).flatten(1)
    adapted = (vectors @ (2 * alike).softmax(0)).reshape(m_q.shape)
    background = 0.3 * mean_of(m_q, sure[0])[:, None, None] + 0.7 * adapted
    margin = margin_to(m_q, background, foreground)
    whole = F.interpolate(margin[None, None], (h, w), mode="bilinear", align_corners=False)
    return whole[0, 0, : mask.shape[0], : mask.shape[1]]


@pytest.mark.parametrize("seed", range(2))
def test_untrained_the_plain_prototypes_answer(seed: int) -> None:
    """Check 2; on so small a map each cell is a field of the background."""
    net = without_suppression(network(seed, background_grid=16))
    net.decision.area_ratio = 1e6
    item = episode(b=1, s=1, n=1, size=64)  # 16 cells per side, none of them padding
    item.pop("label")
    found = net(**item)[0, 1]
    expected = answer_by_the_specification(net, item)
    assert expected.std() > 0.1
    torch.testing.assert_close(found.sigmoid(), expected.sigmoid(), atol=1e-5, rtol=0)


def test_one_episode_can_be_learned() -> None:
    """Check 6: Dice over 0.95, also in evaluation, where nothing is told."""
    mask = disc(64, (30, 34), 14)
    net = network(encoder=ResUNet((8, 16, 16, 32), 16), warmup_steps=20).train()
    image = mask + 0.3 * torch.randn(2, 1, 64, 64)
    item = {"image": image[:1], "support_image": image[1:, None]}
    item["support_label"] = mask[None, None, None]
    label = mask[None, None]
    optimizer, loss = torch.optim.AdamW(net.parameters(), 3e-3), EpisodeLoss(WEIGHTS)
    dice = []
    for _ in range(50):
        out = net(**item, label=label)
        predicted = out["logits"][0, 1] > 0
        dice.append((2 * (predicted * mask).sum() / (predicted.sum() + mask.sum())).item())
        optimizer.zero_grad()
        loss(out, label).backward()
        optimizer.step()
    assert dice[0] < 0.9 and dice[-1] > 0.95
    predicted = net.eval()(**item)[0, 1] > 0
    assert 2 * (predicted * mask).sum() / (predicted.sum() + mask.sum()) > 0.95


def test_support_slice_without_a_pixel() -> None:
    """Background everywhere, by a whole cosine, in evaluation; finite losses in training."""
    item = episode(b=1, s=1, n=2)
    item["support_label"][:, :, 1] = 0
    label = item.pop("label")
    net = network()
    logits = net(**item)
    assert torch.equal(logits[:, 2], torch.full((1, 64, 64), -10.0))
    assert bool(logits.isfinite().all()) and logits[:, 1].std() > 0
    EpisodeLoss(WEIGHTS)(net.train()(**item, label=label), label).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize("pixels", [1, 64 * 64])
@pytest.mark.parametrize("where", ["support_label", "label"])
def test_masks_of_one_pixel_and_of_all_train(pixels: int, where: str) -> None:
    item, net = episode(b=1, s=2, n=1), network(warmup_steps=1).train()
    item[where].fill_(1.0 if pixels > 1 else 0.0)
    item[where][..., 40, 40] = 1
    for _ in range(2):  # told the label, and not
        EpisodeLoss(WEIGHTS, 0.5)(net(**item), item["label"]).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


def test_sections_that_do_not_answer_are_not_computed() -> None:
    """One pair for each weight above zero, whatever the number of sections."""
    item, net = episode(b=2, s=4, n=3), network()
    state = support_of(net, {k: v[:1] for k, v in item.items()})
    query = net.encode(item["image"])
    seen: list[tuple[int, int]] = []
    net.decision.register_forward_pre_hook(lambda part, given: seen.append(given[3].shape))
    weights = torch.zeros(2, 3, 4)
    weights[0, 0, 2] = 1
    weights[0, 2, 1:3] = 0.5
    weights[1, 1, 0] = 2
    margins = net.segment(query, state, weights)[:, 1:]
    assert seen == [(1, 3), (1, 1)]
    assert torch.equal(margins[0, 1], torch.full((64, 64), -40.0))
    every = net._decide(query, state).decided.unflatten(1, [3, 4])
    torch.testing.assert_close(margins[0, 0], every[0, 0, 2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(margins[0, 2], every[0, 2, 1:3].mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(margins[1, 1], every[1, 1, 0], atol=1e-4, rtol=1e-4)
    seen.clear()
    assert bool((net.segment(query, state, torch.zeros(1, 3, 4))[:, 1:] == -40).all())
    assert not seen
