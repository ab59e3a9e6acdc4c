"""What every network of the collection promises, whatever its method."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from network_samples import StubEncoder, episode, small_cow
from torch import nn

from fsmis_components.layers.support_state import check_state, select_sections
from fsmis_components.networks import ALPNet, FewShotNetwork, IPSNet

MAKERS: dict[str, Callable[[nn.Module | str], FewShotNetwork]] = {
    "alpnet": lambda encoder: ALPNet(encoder),
    "cow": small_cow,
    "ipsnet": lambda encoder: IPSNet(
        encoder, deep_width=8, split_width=4, decoder_widths=(8, 8, 8), background_grid=4
    ),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def make(request: pytest.FixtureRequest) -> Callable[..., FewShotNetwork]:
    def made(encoder: nn.Module | str | None = None) -> FewShotNetwork:
        torch.manual_seed(0)
        return request.param(encoder or StubEncoder()).eval()

    return made


@pytest.fixture
def net(make: Callable[..., FewShotNetwork]) -> FewShotNetwork:
    return make()


def test_shapes(net: FewShotNetwork) -> None:
    item = episode()
    label = item.pop("label")
    assert net(**item).shape == (2, 4, 64, 64)
    assert not net(**item)[:, 0].any()
    out = net.train()(**item, label=label)
    assert out["logits"].shape == (2, 4, 64, 64)
    terms = {name: term for name, term in out.items() if name != "logits"}
    assert "query_loss" in terms
    assert all(term.shape == (2,) and torch.isfinite(term).all() for term in terms.values())


def test_state_can_be_kept(net: FewShotNetwork) -> None:
    item = episode(b=1)
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    features = net.encode(item["support_image"][0])
    state = net.build_support(features, item["support_label"], valid)
    check_state(state)
    first = select_sections(state, torch.tensor([0]))
    query = net.encode(item["image"])
    weights = torch.tensor([1.0, 0.0]).expand(1, 3, 2)
    torch.testing.assert_close(net.segment(query, first), net.segment(query, state, weights))


def test_batch_of_two_equals_two_batches_of_one(net: FewShotNetwork) -> None:
    item = episode()
    item.pop("label")
    both = net(**item)
    for b in range(2):
        one = net(**{k: v[b : b + 1] for k, v in item.items()})
        torch.testing.assert_close(both[b : b + 1], one)


def test_structures_of_one_call_equal_separate_calls(net: FewShotNetwork) -> None:
    item = episode()
    item.pop("label")
    together = net(**item)
    for n in range(3):
        alone = net(**(item | {"support_label": item["support_label"][:, :, n : n + 1]}))
        torch.testing.assert_close(together[:, n + 1], alone[:, 1])


def test_same_shot_twice_is_the_shot(net: FewShotNetwork) -> None:
    item = episode(b=1, s=1)
    item.pop("label")
    once = net(**item)
    twice = net(
        **(item | {k: item[k].repeat_interleave(2, 1) for k in ("support_image", "support_label")})
    )
    torch.testing.assert_close(once, twice, atol=1e-4, rtol=1e-4)


def test_unlabelled_sections_and_section_weights_are_left_out(net: FewShotNetwork) -> None:
    item = episode(b=1, s=2)
    support = net.encode(item["support_image"][0])
    query = net.encode(item["image"])
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    valid[0, 1, 0] = False
    partial = net.segment(query, net.build_support(support, item["support_label"], valid))
    weights = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    state = net.build_support(support, item["support_label"], torch.ones_like(valid))
    weighted = net.segment(query, state, weights)
    torch.testing.assert_close(partial[:, 1:3], weighted[:, 1:3])
    absent = torch.full_like(weighted[:, 3], -40.0)  # no section answers
    torch.testing.assert_close(weighted[:, 3], absent)


def test_query_batch_shares_one_support(net: FewShotNetwork) -> None:
    item = episode(b=2)
    features = net.encode(item["support_image"][0])
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    state = net.build_support(features, item["support_label"][:1], valid)
    both = net.segment(net.encode(item["image"]), state)
    one = net.segment(net.encode(item["image"][1:]), state)
    torch.testing.assert_close(both[1:], one)


def test_label_is_refused_in_evaluation(net: FewShotNetwork) -> None:
    with pytest.raises(ValueError, match="never read"):
        net(**episode())


def test_missing_support_is_named(net: FewShotNetwork) -> None:
    with pytest.raises(ValueError, match="set_support"):
        net(torch.randn(1, 1, 64, 64))
    with pytest.raises(ValueError, match="in training mode"):
        net.train()(torch.randn(1, 1, 64, 64))


def test_stored_support_makes_a_single_input_network(net: FewShotNetwork) -> None:
    item = episode(b=1)
    masks, valid = item["support_label"], torch.ones(1, 2, 3, dtype=torch.bool)
    expected = net(item["image"], item["support_image"], item["support_label"])
    names = set(net.state_dict())
    net.set_support(net.build_support(net.encode(item["support_image"][0]), masks, valid))
    assert set(net.state_dict()) == names  # model.pt stays a plain state dict
    torch.testing.assert_close(net(item["image"]), expected)


def test_bfloat16_autocast_stays_close(net: FewShotNetwork) -> None:
    item = episode()
    item.pop("label")
    whole = net(**item)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(**item)
    assert half.dtype == torch.float32
    spread = whole[:, 1:].std().item()
    # a few cells on a threshold may change sides
    assert (half - whole).abs().mean().item() < 0.15 * spread + 1e-3


def test_all_weights_learn(net: FewShotNetwork) -> None:
    out = net.train()(**episode())
    sum(term.sum() for name, term in out.items() if name != "logits").backward()
    still = [name for name, p in net.named_parameters() if p.grad is None]
    assert not still
