from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from fsmis_components.evaluation import metrics
from fsmis_components.evaluation.metrics import mask_figures

CHAOS = (7.7, 1.25, 1.25)
EMPTY = np.zeros((6, 8, 9), bool)


def box(*ranges: tuple[int, int], shape: tuple[int, int, int] = (6, 8, 9)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def smooth_pair(seed: int, shape: tuple[int, int, int] = (6, 12, 11)) -> tuple[np.ndarray, ...]:
    """Two blobs that reach the border of the volume, with holes and loose voxels."""
    noise = np.random.default_rng(seed)
    field = noise.normal(size=shape)
    for axis in range(3):
        field += np.roll(field, 1, axis) + np.roll(field, -1, axis)
    other = field + noise.normal(0, 2, shape)
    return field > 2, other > 2


def by_monai(predicted: np.ndarray, labelled: np.ndarray, spacing: tuple[float, ...]) -> tuple:
    """NSD and HD95 of the whole volume, without our crop and our shortcuts."""
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, labelled)]
    nsd = compute_surface_dice(
        *pair, [2.0], include_background=True, spacing=spacing, use_subvoxels=True
    )
    hd95 = compute_hausdorff_distance(
        *pair, include_background=True, percentile=95, spacing=spacing
    )
    return 100 * float(nsd), float(hd95)


def test_counts_of_voxels() -> None:
    labelled = box((1, 4), (2, 4), (2, 6))  # 24 voxels
    predicted = box((2, 5), (2, 4), (2, 5))  # 18 voxels, 12 of them right
    figures = mask_figures(predicted, labelled, CHAOS)
    assert figures["dice"] == pytest.approx(100 * 24 / 42)
    assert figures["precision"] == pytest.approx(100 * 12 / 18)
    assert figures["recall"] == 50
    assert figures["extent_error"] == 2  # slice 1 and slice 4
    assert figures["false_positive_ml"] == pytest.approx(6 * 7.7 * 1.25 * 1.25 / 1000)


def test_a_gap_lies_inside_the_extent() -> None:
    labelled = box((1, 5), (2, 4), (2, 4))
    predicted = labelled.copy()
    predicted[2:4] = False
    assert mask_figures(predicted, labelled, CHAOS)["extent_error"] == 0
    apart = box((0, 1), (2, 4), (2, 4))
    assert mask_figures(apart, labelled, CHAOS)["extent_error"] == 5


def test_empty_masks_have_figures() -> None:
    mask = box((1, 4), (2, 4), (2, 6))
    volume_ml = 24 * 0.001
    diagonal = math.sqrt(6**2 + 8**2 + 9**2)
    # dice, nsd, hd95, precision, recall, extent error, false positives
    expected = {
        "both": (EMPTY, EMPTY, (100, 100, 0, 100, 100, 0, 0)),
        "label": (mask, EMPTY, (0, 0, diagonal, 0, 100, 3, volume_ml)),
        "prediction": (EMPTY, mask, (0, 0, diagonal, 0, 0, 3, 0)),
    }
    for name, (predicted, labelled, figures) in expected.items():
        found = tuple(mask_figures(predicted, labelled, (1, 1, 1)).values())
        assert found == pytest.approx(figures), name


def test_a_box_one_slice_too_high() -> None:
    """3 x 3 x 3 voxels of 7.7 x 1.25 x 1.25 mm, on paper.

    A surface has a point at each of the 4 x 4 x 4 voxel corners around the box but the inner 8:
    in a face its area is that of a voxel's face, on an edge half the diagonal of the cross-section
    along that edge, at a vertex an eighth of (the three faces' areas as a vector). All points but
    the 16 of the lowest plane lie within 1.25 mm of the other surface, which has side walls there
    or is at most one pixel away; the lowest plane is 7.7 mm away.
    """
    labelled, predicted = box((2, 5), (2, 5), (3, 6)), box((1, 4), (2, 5), (3, 6))
    cap, side = 1.25 * 1.25, 7.7 * 1.25
    lying_edge, standing_edge = math.hypot(cap, side) / 2, math.hypot(side, side) / 2
    vertex = math.hypot(cap, side, side) / 8
    lowest_plane = 4 * cap + 8 * lying_edge + 4 * vertex
    middle_plane = 8 * side + 4 * standing_edge
    surface = 2 * lowest_plane + 2 * middle_plane
    figures = mask_figures(predicted, labelled, CHAOS)
    assert figures["nsd"] == pytest.approx(100 * (surface - lowest_plane) / surface, rel=1e-6)
    # 9 of 26 border voxels, the lowest, are 7.7 mm away: more than 5 in a hundred
    assert figures["hd95_mm"] == pytest.approx(7.7, rel=1e-6)


@pytest.mark.parametrize(("spacing", "seed"), [(CHAOS, 1), ((0.5, 2.0, 3.0), 2)])
@pytest.mark.parametrize("way", ["tree", "transform"])
def test_matches_monai(
    spacing: tuple[float, float, float], seed: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "transform":
        monkeypatch.setattr(metrics, "_TREE_POINTS", 0)
    predicted, labelled = smooth_pair(seed)
    figures = mask_figures(predicted, labelled, spacing)
    assert 0 < figures["nsd"] < 100
    nsd, hd95 = by_monai(predicted, labelled, spacing)
    assert figures["nsd"] == pytest.approx(nsd, rel=1e-5)
    assert figures["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
