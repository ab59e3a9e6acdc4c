"""What CoW finds on the way from a labelled slice to a mask (Jiang and Zhang, IJCAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.evaluation.decision_pictures.slice_pair import SlicePair
from fsmis_components.layers.hard_prototypes import HardPrototypes
from fsmis_components.layers.map_fusion import unit_vectors
from fsmis_components.layers.prototype_sets import APPENDED
from fsmis_components.layers.resize import upsample_corners
from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.support.draw_seeds import draw_seeds
from fsmis_components.support.encode import frozen, network_device


@dataclass(frozen=True)
class CowDecision:
    """The steps of one decision; maps (H, W) have the working size of their slice.

    Attributes:
        pair: the slices.
        self_predicted: where the support's mean prototype finds the structure on its own slice,
            bool; None for a network that does not predict it.
        missed: weak foreground of the support, bool.
        false: weak background of the support, bool.
        hard_foreground: pixels from which hard prototypes were drawn, (K, 2) of row and column.
        hard_background: alike.
        similarity: of the query to the mean prototype alone, a cosine.
        foreground: map that the foreground's decoder fused.
        background: map of the background's.
        margin: their difference; the structure is where it is positive.
        dice: of the query slice at the scan's own resolution, percent.
    """

    pair: SlicePair
    self_predicted: np.ndarray | None
    missed: np.ndarray
    false: np.ndarray
    hard_foreground: np.ndarray
    hard_background: np.ndarray
    similarity: np.ndarray
    foreground: np.ndarray
    background: np.ndarray
    margin: np.ndarray
    dice: float


def decide_cow(network: Any, pair: SlicePair) -> CowDecision:
    """Segment the query slice of a pair and keep what comes about.

    Args:
        network: a CoW network; left in the mode in which it came. The query's label does not
            reach it.
        pair: the slices.
    """
    with frozen(network), torch.inference_mode():
        return _decide(network, pair)


def _decide(network: Any, pair: SlicePair) -> CowDecision:
    device = network_device(network)
    image, mask = pair.support.image.to(device), pair.support.mask.to(device)
    seeds = draw_seeds(pair.support.image, pair.support.mask).to(device)
    features = network.encode(image)
    height, width = (side * network.stride for side in features.high.shape[-2:])
    padding = [0, width - mask.shape[-1], 0, height - mask.shape[-2]]
    inside = F.pad(torch.ones_like(mask), padding)
    sets = network.miner(features.high, F.pad(mask, padding), inside, seeds)
    valid = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    state = network.build_support(features, mask[None], valid, seeds[None])

    query = network.encode(pair.query.image.to(device))
    logits = network.segment(query, state, None)
    unit = unit_vectors(query.high, 1)
    mean = unit_vectors(sets.foreground[0, 0, -APPENDED])
    similarity = torch.einsum("c,bchw->bhw", mean, unit)[:, None]
    fused = [
        fusion(torch.matmul(vectors[0, 0, 0], unit.flatten(2)).unflatten(2, unit.shape[2:]))[
            :, None
        ]
        for fusion, vectors in (
            (network.foreground_fusion, state["foreground"]),
            (network.background_fusion, state["background"]),
        )
    ]

    def on_query(map_: Tensor) -> np.ndarray:
        return _to_image(map_, network.stride, query.image_size)

    def on_support(grid: Tensor) -> np.ndarray:
        """From the square on which prototypes are mined, each cell as it is."""
        whole = F.interpolate(grid.float(), size=[height, width], mode="nearest-exact")
        return whole[0, 0, : mask.shape[-2], : mask.shape[-1]].cpu().numpy() > 0

    rows = upsample_corners(to_compute_dtype(features.high), (network.miner.grid,) * 2)
    rows = rows[0].flatten(1).T  # (L, C)
    scale = np.array([height, width]) / network.miner.grid
    hard = [
        (_hard_positions(miner, found[0, 0], weak[0, 0], rows) + 0.5) * scale - 0.5
        for miner, found, weak in (
            (network.miner.foreground, sets.foreground, sets.weak_foreground),
            (network.miner.background, sets.background, sets.weak_background),
        )
    ]
    own = sets.predicted[0, 0, : mask.shape[-2], : mask.shape[-1]] > 0.5
    return CowDecision(
        pair=pair,
        self_predicted=None if network.miner.predictor is None else own.cpu().numpy(),
        missed=on_support(sets.weak_foreground),
        false=on_support(sets.weak_background),
        hard_foreground=hard[0],
        hard_background=hard[1],
        similarity=on_query(similarity),
        foreground=on_query(fused[0]),
        background=on_query(fused[1]),
        margin=logits[0, 1].cpu().numpy(),
        dice=pair.dice(logits[:, 1:]),
    )


def _hard_positions(
    miner: HardPrototypes | None, prototypes: Tensor, weak: Tensor, rows: Tensor
) -> np.ndarray:
    """Where the hard prototypes of a set come from: row and column on the square, (K, 2).

    In the mode ``code`` they are features of weak pixels, among which they are found again; in
    the others nothing is drawn from a pixel.

    Args:
        miner: made the set, all but the two that are appended.
        prototypes: the set (P, C).
        weak: weak pixels (grid, grid).
        rows: features (grid * grid, C).
    """
    candidates = torch.nonzero(weak.flatten()).flatten()
    if miner is None or miner.mode != "code" or not len(candidates):
        return np.zeros((0, 2))
    hard = prototypes[: miner.num_prototypes][-miner.num_hard :]
    # by differences, not by products, so that a feature is at distance 0 from itself
    distance = torch.cdist(hard, rows[candidates], compute_mode="donot_use_mm_for_euclid_dist")
    drawn = candidates[distance.argmin(1)].unique().cpu().numpy()
    return np.stack([drawn // weak.shape[1], drawn % weak.shape[1]], 1).astype(float)


def _to_image(map_: Tensor, stride: int, size: tuple[int, int]) -> np.ndarray:
    """A map (1, 1, h, w) of the features at the size of the slice, as the network's margins."""
    whole = upsample_corners(map_, (map_.shape[-2] * stride, map_.shape[-1] * stride))
    return whole[0, 0, : size[0], : size[1]].cpu().numpy()
