"""SSL-ALPNet point by point: an independent plain version, and examples computed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_samples import StubEncoder, disc, episode
from torch import Tensor

from fsmis_components.networks import ALPNet, SliceFeatures


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
