"""Peak prototypes: four readings of one word, by hand, and acceptance check 3 of the method."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fsmis_components.layers.peak_prototypes import KINDS, PeakPrototypes

# one pair, two channels, six cells of which the last does not belong
FEATURES = torch.tensor([[[1.0, 5, 2, 0, 4, 90], [3.0, 0, 4, 2, 1, 90]]]).reshape(1, 2, 2, 3)
CELLS = torch.tensor([[True, True, True, True, True, False]]).reshape(1, 2, 3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("channel_max", [5.0, 4.0]),
        ("topk_mean", [(5 + 4) / 2, (4 + 3) / 2]),  # 40 % of five cells: two
        ("argmax_vector", [5.0, 0.0]),  # squared lengths 10, 25, 20, 4, 17
        # the mean is (2.4, 2), nearest in angle is (2, 4): the others are farther to the sides
        ("argmax_similarity", [2.0, 4.0]),
    ],
)
def test_values(kind: str, expected: list[float]) -> None:
    peaks = PeakPrototypes(kind, share=0.4, fewest=1)(FEATURES, CELLS)
    torch.testing.assert_close(peaks, torch.tensor([expected]))


@pytest.mark.parametrize(
    ("share", "fewest", "expected"),
    [
        (0.05, 4, (5 + 4 + 2 + 1) / 4),  # a share below the fewest
        (0.05, 9, 12 / 5),  # fewer cells than the fewest: all
        (1.0, 1, 12 / 5),
        (0.5, 1, (5 + 4) / 2),  # 2.5 cells round to the even number
    ],
)
def test_number_of_highest_values(share: float, fewest: int, expected: float) -> None:
    peaks = PeakPrototypes("topk_mean", share, fewest)(FEATURES, CELLS)
    assert peaks[0, 0].item() == pytest.approx(expected)


def test_a_number_that_rounds_differently_in_float32() -> None:
    """Of 45 cells 70 % are 31.5, less a trifle in float64: 31 values must not be divided by 32."""
    peaks = PeakPrototypes("topk_mean", 0.7)(torch.ones(1, 1, 9, 5), torch.ones(1, 9, 5).bool())
    assert peaks.item() == 1


def test_pairs_do_not_mix() -> None:
    torch.manual_seed(0)
    features = torch.randn(5, 19, 17, 13)
    cells = torch.rand(5, 17, 13) < torch.tensor([0.01, 0.2, 0.7, 0.0, 1.0])[:, None, None]
    for kind in KINDS:
        net = PeakPrototypes(kind)
        together = net(features, cells)
        assert together.shape == (5, 19)
        alone = [net(features[i : i + 1], cells[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone))


def test_values_beside_a_loop() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 7, 16, 12).relu()
    cells = torch.rand(4, 16, 12) < torch.tensor([0.02, 0.3, 0.7, 1.0])[:, None, None]
    found = {kind: PeakPrototypes(kind)(features, cells) for kind in KINDS}
    for i in range(4):
        own = features[i, :, cells[i]]  # (C, cells)
        k = min(max(round(0.05 * own.shape[1]), 4), own.shape[1])
        longest = own.norm(dim=0).argmax()
        nearest = torch.cosine_similarity(own, own.mean(1, keepdim=True), 0).argmax()
        expected = {
            "channel_max": own.amax(1),
            "topk_mean": own.sort(1, descending=True)[0][:, :k].mean(1),
            "argmax_vector": own[:, longest],
            "argmax_similarity": own[:, nearest],
        }
        for kind in KINDS:
            torch.testing.assert_close(found[kind][i], expected[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_constant_map_is_the_mean(kind: str) -> None:
    features = torch.tensor([2.0, 0.0, 7.0]).reshape(1, 3, 1, 1).expand(1, 3, 5, 4)
    cells = torch.zeros(1, 5, 4, dtype=torch.bool)
    cells[0, 1:3, 2] = True
    torch.testing.assert_close(
        PeakPrototypes(kind)(features, cells), torch.tensor([[2.0, 0.0, 7.0]])
    )


def test_a_low_cell_does_not_change_a_maximum() -> None:
    for kind in ("channel_max", "argmax_vector"):
        net = PeakPrototypes(kind)
        grown = CELLS.clone()
        grown[0, 1, 2] = True
        low = FEATURES.clone()
        low[..., 1, 2] = 0.5
        assert torch.equal(net(low, grown), net(low, CELLS))
        assert not torch.equal(net(FEATURES, grown), net(FEATURES, CELLS))  # where it is high


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_cell_it_is_the_mean_of_the_map(kind: str) -> None:
    features = torch.cat([FEATURES, FEATURES]).requires_grad_()
    cells = torch.cat([torch.zeros_like(CELLS), CELLS])
    peaks = PeakPrototypes(kind)(features, cells)
    torch.testing.assert_close(peaks[0], torch.tensor([102 / 6, 100 / 6]))
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way, even if masked later
        PeakPrototypes(kind)(features, cells).sum().backward()
    torch.testing.assert_close(features.grad[0], torch.full((2, 2, 3), 1 / 6))
    assert bool(features.grad[1].isfinite().all())
    assert not bool(features.grad[1, :, 1, 2].any())  # the cell outside


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    cells = torch.rand(3, 4, 5) < torch.tensor([0.0, 0.3, 0.9])[:, None, None]
    net = PeakPrototypes(kind, fewest=2)
    assert torch.autograd.gradcheck(lambda f: net(f, cells), (features,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_zeros_gives_finite_gradients(kind: str) -> None:
    features = torch.zeros(1, 3, 4, 4, requires_grad=True)
    peaks = PeakPrototypes(kind)(features, torch.ones(1, 4, 4, dtype=torch.bool))
    assert not bool(peaks.any())
    peaks.sum().backward()
    # each channel's prototype has one unit of gradient, however many cells are equal
    torch.testing.assert_close(features.grad.sum((2, 3)), torch.ones(1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_computes_in_float32(kind: str) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 16, 16).bfloat16()
    cells = torch.rand(2, 16, 16) < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        peaks = PeakPrototypes(kind)(features, cells)
    assert peaks.dtype == torch.float32
    assert torch.equal(peaks, PeakPrototypes(kind)(features.float(), cells))


@pytest.mark.parametrize("kind", KINDS)
def test_scripts(kind: str) -> None:
    torch.manual_seed(0)
    features: Tensor = torch.randn(3, 5, 6, 7)
    cells = torch.rand(3, 6, 7) < torch.tensor([0.0, 0.1, 0.8])[:, None, None]
    net = PeakPrototypes(kind)
    torch.testing.assert_close(torch.jit.script(net)(features, cells), net(features, cells))


def test_rejects() -> None:
    with pytest.raises(ValueError, match="expected kind in .*'topk_mean'.*, got 'max'"):
        PeakPrototypes("max")
    for share, fewest in ((0.0, 4), (1.5, 4), (0.05, 0)):
        with pytest.raises(ValueError, match=f"share in .0, 1. and fewest .*{share} and {fewest}"):
            PeakPrototypes("topk_mean", share, fewest)
    net = PeakPrototypes()
    with pytest.raises(ValueError, match=r"got \(1, 2, 2, 3\) and \(1, 3, 2\) of torch.bool"):
        net(FEATURES, CELLS.transpose(1, 2))
    with pytest.raises(ValueError, match=r"bool cells .* of torch.float32"):
        net(FEATURES, CELLS.float())
