"""CoW: what its training does, and its corner cases. What all networks promise: test_contract."""

from __future__ import annotations

import pytest
import torch
from network_samples import StubEncoder, disc, episode, small_cow
from torch import Tensor

from fsmis_components.losses import EpisodeLoss
from fsmis_components.networks import CoW, ResUNet

WEIGHTS = {
    "query_loss": 1.0,
    "alignment_loss": 1.0,
    "auxiliary_loss": 0.3,
    "self_prediction_loss": 0.3,
}


def network(**changes: object) -> CoW:
    torch.manual_seed(0)
    return small_cow(**({"encoder": StubEncoder()} | changes)).eval()


def support_of(net: CoW, item: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    valid = torch.ones(item["support_label"].shape[:3], dtype=torch.bool)
    features = net.encode(item["support_image"].flatten(0, 1))
    return net.encode(item["image"]), net.build_support(features, item["support_label"], valid)


def test_margin_is_the_difference_of_the_fused_maps() -> None:
    """By the explicit way: cosine maps of every prototype, both decoders, their difference."""
    item = episode(b=1, s=1, n=1)
    net = network()
    query, state = support_of(net, item)
    support = net.encode(item["support_image"][0])
    sets = net.miner(
        support.high, item["support_label"][0], torch.ones(1, 1, 64, 64), torch.zeros(1, 1).long()
    )
    fused = []
    for prototypes, fusion in (
        (sets.foreground, net.foreground_fusion),
        (sets.background, net.background_fusion),
    ):
        maps = torch.cosine_similarity(query.high, prototypes[0, 0][:, :, None, None], dim=1)
        fused.append(fusion(fusion.mixing(maps[None])))
    margin = net._margins(query.high, state, None)
    torch.testing.assert_close(margin[0], fused[0] - fused[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "left_out", [{"hpg": False}, {"fusion": "mean"}, {"self_prediction": False}], ids=str
)
def test_every_part_can_be_left_out(left_out: dict[str, object]) -> None:
    out = network(**left_out).train()(**episode(b=1, s=1))
    assert set(out) == {"logits", *WEIGHTS}
    assert (out["self_prediction_loss"] == 0).all() == ("self_prediction" in left_out)


def test_empty_query_prediction_skips_the_swapped_branch() -> None:
    """Its losses are zero, the self-prediction loss still runs."""
    item = episode(b=1, s=1, n=2)
    net = network(fusion="mean", hpg=False).train()
    net.encoder.eval()
    net._margins = lambda query, state, weights: torch.full((1, 2, 8, 8), -3.0)  # type: ignore[method-assign]
    out = net(**item)
    assert out["alignment_loss"].item() == out["auxiliary_loss"].item() == 0
    assert out["self_prediction_loss"].item() > 0
    assert out["query_loss"].item() > 0


def test_support_slice_without_a_pixel() -> None:
    """The guard of the released code: background everywhere, by half of the first threshold."""
    item = episode(b=1, s=1, n=2)
    item["support_label"][:, :, 1] = 0
    item.pop("label")
    logits = network()(**item)
    torch.testing.assert_close(logits[:, 2], torch.full((1, 64, 64), -5.0))
    assert logits.isfinite().all()


def test_seeds_decide_the_draws() -> None:
    item = episode(b=1, s=1)
    net = network()
    features = net.encode(item["support_image"][0])
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    one, again, other = (
        net.build_support(features, item["support_label"], valid, torch.full((1, 1, 3), seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(one["background"], again["background"])
    assert not torch.equal(one["background"], other["background"])


def test_one_episode_can_be_learned() -> None:
    """Acceptance check 6: Dice over 0.95 in a few hundred steps."""
    torch.manual_seed(0)
    mask = disc(64, (30, 34), 14)
    texture = 0.3 * torch.randn(2, 1, 64, 64)
    image = mask + texture
    item = {
        "image": image[:1],
        "support_image": image[1:, None],
        "support_label": mask[None, None, None],
        "label": mask[None, None],
    }
    net = network(encoder=ResUNet((8, 16, 16, 32), 16), guided_init=True).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    loss = EpisodeLoss(WEIGHTS, 0.5)
    for step in range(300):
        out = net(**item)
        predicted = out["logits"][0, 1] > 0
        dice = 2 * (predicted * mask).sum() / (predicted.sum() + mask.sum())
        if dice > 0.95 and step > 20:
            break
        optimizer.zero_grad()
        loss(out, item["label"]).backward()
        optimizer.step()
    assert dice > 0.95


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="two numbers"):
        network(num_hard=(1, 2, 3))
    with pytest.raises(ValueError, match="expected fusion"):
        network(fusion="max")
    with pytest.raises(ValueError, match="hpg True or False"):
        network(hpg="none")
