"""SSL-ALPNet point by point: an independent plain version, and examples computed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_samples import StubEncoder, disc, episode
from torch import Tensor

from fsmis_components.networks import ALPNet, SliceFeatures
from fsmis_components.networks.alpnet import fills_a_block, grid_prototypes


def network(**changes: object) -> ALPNet:
    torch.manual_seed(0)
    return ALPNet(encoder=StubEncoder(), **changes).eval()


def features(values: Tensor, stride: int = 8) -> SliceFeatures:
    return SliceFeatures(values, (values.shape[-2] * stride, values.shape[-1] * stride))


def plain_scores(
    query: Tensor, support: Tensor, mask: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """One structure, one shot, straight from the specification; query (C, h, w), mask (H, W)."""
    h, w = query.shape[-2:]

    def resized(m: Tensor) -> Tensor:
        return F.interpolate(m[None, None], (h, w), mode="bilinear", align_corners=False)[0, 0]

    def unit(v: Tensor) -> Tensor:
        return v / max(float(v.norm()), 1e-4)

    def cells(m: Tensor) -> list[Tensor]:
        found = []
        for i in range(h // window):
            for j in range(w // window):
                rows, cols = (
                    slice(i * window, (i + 1) * window),
                    slice(j * window, (j + 1) * window),
                )
                if float(m[rows, cols].mean()) > 0.95:
                    found.append(support[:, rows, cols].mean((1, 2)))
        return found

    def score(prototypes: list[Tensor]) -> Tensor:
        out = torch.zeros(h, w)
        for i in range(h):
            for j in range(w):
                q = unit(query[:, i, j])
                d = torch.tensor([20 * float(unit(p) @ q) for p in prototypes])
                out[i, j] = (d.softmax(0) * d).sum()
        return out

    front, back = resized(mask), resized(1 - mask)
    mean = (support * front).sum((1, 2)) / (front.sum() + 1e-5)
    local = bool(F.avg_pool2d(front[None], 4).max() >= 0.95)
    return score(cells(front) + [mean] if local else [mean]), score(cells(back))


@pytest.mark.parametrize("radius", [60.0, 14.0], ids=["local_mode", "global_mode"])
def test_matches_plain_version_of_the_specification(radius: float) -> None:
    torch.manual_seed(1)
    support, query = torch.randn(2, 7, 16, 16)
    mask = disc(128, (64, 60), radius)
    net = network()
    state = net.build_support(
        features(support[None]), mask[None, None, None], torch.ones(1, 1, 1, dtype=torch.bool)
    )
    logits = net.segment(features(query[None]), state)
    foreground, background = plain_scores(query, support, mask, window=2)
    expected = F.interpolate(
        (foreground - background)[None, None], scale_factor=8, mode="bilinear", align_corners=False
    )
    assert logits.shape == (1, 2, 128, 128)
    torch.testing.assert_close(logits[:, 1:], expected, atol=1e-4, rtol=1e-4)
    assert not logits[:, 0].any()


def test_switch_window_stays_32_pixels_in_evaluation() -> None:
    """A 24 pixel square holds a cell of 16 but no block of 32: the global prototype decides."""
    net = network()
    mask = torch.zeros(1, 1, 1, 128, 128)
    mask[..., 16:40, 16:40] = 1
    state = net.build_support(
        features(torch.randn(1, 3, 16, 16)), mask, torch.ones(1, 1, 1, dtype=torch.bool)
    )
    assert int(state["foreground_cells"].sum()) == 1
    assert not state["local_mode"].any()


def test_windows_scale_with_the_stride() -> None:
    net = network()
    assert (net.train_window, net.eval_window, net.switch_window) == (4, 2, 4)
    compact = ALPNet()
    assert (compact.train_window, compact.eval_window, compact.switch_window) == (8, 4, 8)


def test_a_structure_that_the_query_does_not_show_is_not_led_back() -> None:
    item = episode()
    net = network().train()
    net.encoder.eval()
    shown = net(**item)["alignment_loss"]
    assert bool((shown > 0).all())
    absent = net(**(item | {"label": torch.zeros_like(item["label"])}))
    assert torch.equal(absent["alignment_loss"], torch.zeros_like(shown))
    assert bool((absent["query_loss"] > 0).all())  # background everywhere is still learned


def test_grid_values() -> None:
    # two rows of three cells of 2 x 2; a border column is left out
    features = torch.arange(4.0)[:, None] * 10 + torch.arange(7.0)
    mask = torch.zeros(4, 7)
    mask[:2, :3] = 1  # the first cell, half of the second
    mask[2:, 4:] = 1  # the last cell and the border
    masks = torch.stack([mask, 1 - mask])[None]
    cells, valid = grid_prototypes(torch.stack([features, -features])[None], masks, 2, 0.95)
    expected = torch.tensor([5.5, 7.5, 9.5, 25.5, 27.5, 29.5])
    torch.testing.assert_close(cells, torch.stack([expected, -expected], 1)[None])
    assert valid[0].int().tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0]]


def test_grid_threshold_is_strict_and_the_switch_is_not() -> None:
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)  # fills 0.75
    features = torch.rand(1, 5, 2, 2)
    assert not grid_prototypes(features, mask, 2, 0.75)[1].item()
    assert grid_prototypes(features, mask, 2, 0.74)[1].item()
    assert fills_a_block(mask, 2, 0.75).item()
    assert not fills_a_block(mask, 2, 0.76).item()


def test_half_masks_are_compared_in_float32() -> None:
    # 61 of 64 fill 0.953; bfloat16 would round both sides to one number
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bfloat16)
    mask[..., 0, :3] = 0
    assert grid_prototypes(torch.rand(1, 5, 8, 8).bfloat16(), mask, 8, 0.95)[1].item()
    assert fills_a_block(mask, 8, 0.95).item()


def test_a_window_larger_than_the_features_is_clipped() -> None:
    features, mask = torch.rand(2, 4, 3, 5), torch.ones(2, 3, 3, 5)
    cells, valid = grid_prototypes(features, mask, 4, 0.95)
    torch.testing.assert_close(cells, features[..., :4].mean((2, 3))[:, None])
    assert valid.all()
    assert fills_a_block(mask, 4, 0.95).all()
