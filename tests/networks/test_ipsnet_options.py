"""The parts of IPSNet that can be left out, its warm-up and its loss terms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ipsnet_samples import WEIGHTS, network, with_trained_decoder
from network_samples import episode

from fsmis_components.losses import (
    EpisodeLoss,
    margin_cross_entropy,
    soft_dice_loss,
)
from fsmis_components.networks import IPSNet

BARE: dict[str, object] = {"deep": False, "interaction": "none", "self_learning": False}
OPTIONS: list[dict[str, object]] = [
    BARE,
    {"interaction": "none", "low_level": False},
    {"interaction": "mean", "self_learning": False},
    {"background_grid": 1, "warmup_steps": 0},
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
    ("changes", "message"),
    [
        ({"deep": "false"}, "expected deep True or False, got 'false'"),
        ({"deep": False}, "needs peak prototypes"),
        ({"interaction": "all"}, "expected interaction in"),
        ({"decoder_widths": (8, 8)}, "three widths"),
        ({"encoder": "vgg"}, "got 'vgg'"),
    ],
    ids=str,
)
def test_rejects(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**changes)


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch):
    """Return a function that trains some steps and says for whom the label was used."""

    def run(net: IPSNet, steps: int, draws: tuple[float, ...] = (0.6, 0.3)) -> list[list[bool]]:
        monkeypatch.setattr(torch, "rand", lambda size, device: torch.tensor(draws, device=device))
        seen: list[list[bool]] = []
        handle = net.decision.register_forward_pre_hook(
            lambda part, given: seen.append(given[5].tolist())
        )
        for _ in range(steps):
            net.train()(**episode(b=2, s=1, n=1))
        handle.remove()
        return seen

    return run


def test_warm_up_falls_from_one_to_zero(warmed) -> None:
    """Probabilities 1, 3/4, 1/2, 1/4 and then 0, against draws of 0.6 and 0.3."""
    both, second, neither = [True, True], [False, True], [False, False]
    assert warmed(network(), 6) == [both, both, second, neither, neither, neither]
    assert warmed(network(), 6, (0.0, 0.9))[3:] == [[True, False], neither, neither]


def test_warm_up_is_counted_in_training_alone_and_goes_with_the_weights(warmed) -> None:
    net, item = network(), episode(b=2, s=1, n=1)
    warmed(net, 2)
    item.pop("label")
    net.eval()(**item)
    assert net.state_dict()["steps"].item() == 2
    other = network(seed=1)
    other.load_state_dict(net.state_dict())
    assert warmed(other, 3) == [[False, True], [False, False], [False, False]]


def test_losses_of_the_maps() -> None:
    """Cross-entropy, background counting 0.1, and Dice of each map: averaged, then enlarged."""
    item, net = episode(b=2, s=2, n=2), with_trained_decoder(network()).train()
    seen = []
    net.decision.register_forward_hook(lambda part, given, found: seen.append(found))
    out = net(**item)
    for term, name in (
        ("intermediate_loss", "intermediate"),
        ("guidance_loss", "guidance"),
        ("self_loss", "self_support"),
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
