"""How far the result of one scan can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsmis_components.data.geometry import SliceView
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.trust.expected_dice import expected_dice
from fsmis_components.inferers.trust.meter import Measures
from fsmis_components.inferers.trust.out_of_support import Likeness, out_of_support
from fsmis_components.support.support_pack import SupportPack


@dataclass(frozen=True)
class CaseTrust:
    """What is expected of a result; no label of the scan was needed for it.

    Attributes:
        expected_dice: per structure, in [0, 1].
        warning: one sentence where the scan is unlike the support; empty otherwise.
    """

    expected_dice: tuple[float, ...]
    warning: str


def case_trust(
    measures: Sequence[Measures],
    match: VolumeMatch,
    view: SliceView,
    pack: SupportPack,
    mirrored: float = 0.0,
) -> CaseTrust:
    """Judge a result.

    Args:
        measures: of each structure, from a `TrustMeter`.
        match: where the scan lies in the support.
        view: the scan on the grid of the support.
        pack: the support.
        mirrored: `mirror_gain` of the scan; 0: not looked at.
    """
    expected = tuple(expected_dice(each) for each in measures)
    scan = int(np.argmax([alignment.similarity for alignment in match.alignments]))
    best = match.alignments[scan]
    like = Likeness(
        similarity=best.similarity,
        support_depth=pack.profiles[scan].depth,
        reversed=best.slope < 0,
        mirror_gain=mirrored,
        extent_ratio=max(view.working_size) / view.grid.spatial_size,
        expected_dice=sum(expected) / len(expected),
        depth=view.depth,
        tilt=view.tilt if pack.profiles[0].oriented else 0.0,
    )
    return CaseTrust(expected, out_of_support(like))
