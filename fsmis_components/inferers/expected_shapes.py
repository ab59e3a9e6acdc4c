"""The support's shapes as they are expected in a query, from all support scans."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsmis_components.inferers.clean_up import Build, build_of
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.shape_prior import (
    PriorRule,
    best_move,
    blurred_shapes,
    leads,
    mapped_shapes,
    moved,
    pad_slices,
)
from fsmis_components.inferers.z_alignment import Alignment
from fsmis_components.support.support_pack import SupportPack

# what is moved to fit is sharper than what is expected in the end
_FITTED_BLUR, _FITTED_BLUR_SLICES = 1.0, 0.5


class Expected(NamedTuple):
    """Shares of the cells of a query that each structure is expected to fill, (D, N, h, w).

    Attributes:
        likely: blurred, where it may lie.
        fitted: hardly blurred, where the shape was moved to.
    """

    likely: Tensor
    fitted: Tensor


class ExpectedShapes:
    """The shapes of a support pack, blurred once for all queries.

    Args:
        pack: the support.
        rule: how sharply shapes count and how far they may be moved.
    """

    def __init__(self, pack: SupportPack, rule: PriorRule) -> None:
        self.pack = pack
        self.rule = rule
        self._wide = [
            blurred_shapes(profile, rule.blur, rule.blur_slices) for profile in pack.profiles
        ]
        self._sharp = [
            blurred_shapes(profile, _FITTED_BLUR, _FITTED_BLUR_SLICES) for profile in pack.profiles
        ]

    @cached_property
    def builds(self) -> list[Build]:
        """How each structure is built, in the scan in which it has the most parts."""
        result = []
        for index in range(len(self.pack.structures)):
            seen = [
                build_of(profile.shapes[index].numpy().astype(np.float32) / 255)
                for profile in self.pack.profiles
                if not profile.extents[index].isnan().any()
            ]
            parts = max((build.parts for build in seen), default=1)
            result.append(Build(parts, all(build.solid for build in seen)))
        return result

    def of(self, match: VolumeMatch, evidence: Tensor | None, size: tuple[int, int]) -> Expected:
        """What is expected in a query.

        Args:
            match: where the query lies in each support scan.
            evidence: margins (D, N, h, w) on the grid of the shapes, to which each shape is moved;
                None: shapes stay where they are.
            size: h and w.
        """
        lead = None if evidence is None else leads(evidence)
        shape = (len(match.section_weights), len(self.pack.structures), *size)
        expected = Expected(torch.zeros(shape), torch.zeros(shape))
        total = torch.zeros(shape[1])
        for scan, profile in enumerate(self.pack.profiles):
            share = float(match.shares[scan])
            if not share:
                continue
            labelled = ~profile.extents.isnan().any(1)
            own = self._of_scan(scan, match.alignments[scan], lead, labelled, size)
            for sum_, part in zip(expected, own, strict=True):
                sum_ += share * labelled[:, None, None] * part
            total += share * labelled
        total = total.clamp_min(1e-6)[:, None, None]
        return Expected(expected.likely / total, expected.fitted / total)

    def _of_scan(
        self,
        scan: int,
        alignment: Alignment,
        lead: Tensor | None,
        labelled: Tensor,
        size: tuple[int, int],
    ) -> Expected:
        likely = self._mapped(self._wide[scan], alignment.positions, self.rule.blur_slices, size)
        fitted = self._mapped(self._sharp[scan], alignment.positions, _FITTED_BLUR_SLICES, size)
        if lead is None:
            return Expected(likely, fitted)
        depth = self.pack.profiles[scan].depth
        for index in torch.nonzero(labelled).flatten().tolist():
            move = best_move(lead[:, index], fitted[:, index], self.rule, depth, alignment.slope)
            likely[:, index] = moved(likely[:, index], move)
            fitted[:, index] = moved(fitted[:, index], move)
        return Expected(likely, fitted)

    @staticmethod
    def _mapped(
        shapes: np.ndarray, positions: np.ndarray, blur_slices: float, size: tuple[int, int]
    ) -> Tensor:
        return mapped_shapes(shapes, positions, pad_slices(blur_slices), size)
