"""What an IPS-style network finds on the way from a labelled slice to a mask.

IPSNet is reconstructed from the abstract of Song et al., Artificial Intelligence in Medicine 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsmis_components.evaluation.decision_pictures.slice_pair import SlicePair
from fsmis_components.support.encode import frozen, network_device


@dataclass(frozen=True)
class SelfLearned:
    """What the query's own prototypes are made of and answer.

    Attributes:
        foreground: cells that gave the foreground prototype, bool (H, W).
        background: cells that gave the background prototypes, alike.
        num_cells: of the features' grid, of foreground and background.
        trusted: False: the area of the first is too unlike the support's structure, so they are
            not used (B10 of our specification) and the margin is by the support's prototypes.
        margin: (H, W), before the decoder corrects it.
    """

    foreground: np.ndarray
    background: np.ndarray
    num_cells: tuple[int, int]
    trusted: bool
    margin: np.ndarray


@dataclass(frozen=True)
class IpsDecision:
    """The steps of one decision; maps (H, W) have the working size of the query slice.

    Margins are foreground less background, so a mask is where they are positive.

    Attributes:
        pair: the slices.
        guidance: margin of the coarse guidance map G, by the support's prototypes alone.
        mean_map: margin by mean prototypes of mid-level features, after their interaction.
        peak_map: margin by peak prototypes of high-level features, after their interaction; None
            for a network without a deep module.
        intermediate: margin of both blended, of which the first mask P1 is made.
        own: of the self-learning; None for a network without it.
        decided: final margin.
        dice: of the query slice at the scan's own resolution, percent.
    """

    pair: SlicePair
    guidance: np.ndarray
    mean_map: np.ndarray
    peak_map: np.ndarray | None
    intermediate: np.ndarray
    own: SelfLearned | None
    decided: np.ndarray
    dice: float


def decide_ips(network: Any, pair: SlicePair) -> IpsDecision:
    """Segment the query slice of a pair and keep what comes about.

    Args:
        network: an IPS-style network; left in the mode in which it came. The query's label does
            not reach it.
        pair: the slices.
    """
    device = network_device(network)
    mask = pair.support.mask.to(device)
    valid = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    with frozen(network), torch.inference_mode():
        state = network.build_support(
            network.encode(pair.support.image.to(device)), mask[None], valid, None
        )
        found = network.decide(network.encode(pair.query.image.to(device)), state)
    size = (pair.query.image.shape[-2], pair.query.image.shape[-1])

    def margin(maps: Tensor) -> np.ndarray:
        """A margin (1, 1, 1, h, w) of the features' grid, as the network enlarges it."""
        return network.decision.to_image(maps, size)[0, 0, 0].float().cpu().numpy()

    def cells(chosen: Tensor) -> np.ndarray:
        """Cells (1, 1, 1, h, w) of the features' grid, each as it is."""
        whole = chosen.repeat_interleave(network.stride, -2).repeat_interleave(network.stride, -1)
        return whole[0, 0, 0, : size[0], : size[1]].cpu().numpy()

    own = None
    if network.decision.self_support is not None:
        chosen = (found.confident_foreground, found.confident_background)
        own = SelfLearned(
            foreground=cells(chosen[0]),
            background=cells(chosen[1]),
            num_cells=(int(chosen[0].sum()), int(chosen[1].sum())),
            trusted=bool(found.trusted[0, 0, 0]),
            margin=margin(found.own),
        )
    return IpsDecision(
        pair=pair,
        guidance=margin(found.guidance),
        mean_map=margin(found.mean_map),
        peak_map=None if network.deep is None else margin(found.peak_map),
        intermediate=margin(found.intermediate),
        own=own,
        decided=found.decided[0, 0, 0].float().cpu().numpy(),
        dice=pair.dice(found.decided[:, :, 0]),
    )
