"""The support's shapes as they are expected in a query, from all support scans."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.geometry import SliceView
from fsmis_components.inferers.clean_up import Topology, topology_of
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.registration import displacement, stride_through, warp_shapes
from fsmis_components.inferers.shape_prior import (
    PriorRule,
    best_move,
    blur_each,
    blur_shapes,
    lead_over_rivals,
    map_shapes,
    move_shape,
    pad_slices,
)
from fsmis_components.inferers.z_alignment import Alignment
from fsmis_components.support.scan_profile import ScanProfile, shape_cell
from fsmis_components.support.self_similarity import self_similarity
from fsmis_components.support.support_pack import SupportPack

# what is moved to fit is sharper than what is expected in the end
_FITTED_BLUR, _FITTED_BLUR_SLICES = 1.0, 0.5


class Appearance(NamedTuple):
    """What support scans are registered with."""

    self_similarity: Tensor  # uint8 (D, 12, h, w) of the query
    through: int  # query slices that are as far apart as two cells, see `stride_through`


def appearance_of(view: SliceView, pack: SupportPack) -> Appearance | None:
    """The appearance of a query; None: no scan of the support can be registered."""
    if all(profile.self_similarity is None for profile in pack.profiles):
        return None
    cell = shape_cell(pack.grid)
    through, pixel = view.working_spacing
    described = self_similarity(view, pack.normalisation, cell)
    return Appearance(described, stride_through(through, cell * pixel))


class Expected(NamedTuple):
    """Shares of the cells of a query that each structure is expected to fill, (D, N, h, w)."""

    shares: Tensor  # blurred, where it may lie
    fitted: Tensor  # hardly blurred, where the shape was moved to


def pack_topologies(pack: SupportPack) -> list[Topology]:
    """The topology of each structure of a pack, of the scan in which it has the most parts."""
    result = []
    for index in range(len(pack.structures)):
        found = [
            topology_of(profile.shapes[index].numpy().astype(np.float32) / 255)
            for profile in pack.profiles
            if not profile.extents[index].isnan().any()
        ]
        parts = max((each.parts for each in found), default=1)
        result.append(Topology(parts, all(each.solid for each in found)))
    return result


class ExpectedShapes:
    """The shapes of a support pack, blurred once for all queries.

    Args:
        pack: the support.
        rule: how sharply shapes count and how far they may be moved.
    """

    def __init__(self, pack: SupportPack, rule: PriorRule) -> None:
        self.pack = pack
        self.rule = rule

    @cached_property
    def _wide(self) -> list[np.ndarray]:
        """Shapes to be moved; a scan that is registered needs none."""
        rule = self.rule
        return [
            blur_shapes(each.shapes, rule.blur, rule.blur_slices) for each in self.pack.profiles
        ]

    @cached_property
    def _sharp(self) -> list[np.ndarray]:
        return [
            blur_shapes(each.shapes, _FITTED_BLUR, _FITTED_BLUR_SLICES)
            for each in self.pack.profiles
        ]

    @cached_property
    def topologies(self) -> list[Topology]:
        """See `pack_topologies`."""
        return pack_topologies(self.pack)

    def of(
        self,
        match: VolumeMatch,
        evidence: Tensor | None,
        size: tuple[int, int],
        appearance: Appearance | None = None,
    ) -> Expected:
        """What is expected in a query that lies as `match` says, on cells of `size`.

        Each shape is moved to the evidence, margins (D, N, h, w) on the grid of the shapes; None:
        it stays where it is. With the query's appearance support scans are registered in place of
        moves, where theirs is known.
        """
        lead = None if evidence is None else lead_over_rivals(evidence)
        shape = (len(match.section_weights), len(self.pack.structures), *size)
        expected = Expected(torch.zeros(shape), torch.zeros(shape))
        total = torch.zeros(shape[1])
        for scan, profile in enumerate(self.pack.profiles):
            share = float(match.shares[scan])
            if not share:
                continue
            labelled = ~profile.extents.isnan().any(1)
            if appearance is not None and profile.self_similarity is not None:
                of_scan = self._register(profile, match.alignments[scan], appearance, size)
            else:
                of_scan = self._of_scan(scan, match.alignments[scan], lead, labelled, size)
            for sum_, part in zip(expected, of_scan, strict=True):
                sum_ += share * labelled[:, None, None] * part
            total += share * labelled
        total = total.clamp_min(1e-6)[:, None, None]
        return Expected(expected.shares / total, expected.fitted / total)

    def _of_scan(
        self,
        scan: int,
        alignment: Alignment,
        lead: Tensor | None,
        labelled: Tensor,
        size: tuple[int, int],
    ) -> Expected:
        shares = self._map(self._wide[scan], alignment.positions, self.rule.blur_slices, size)
        fitted = self._map(self._sharp[scan], alignment.positions, _FITTED_BLUR_SLICES, size)
        if lead is None:
            return Expected(shares, fitted)
        depth = self.pack.profiles[scan].depth
        for index in torch.nonzero(labelled).flatten().tolist():
            move = best_move(lead[:, index], fitted[:, index], self.rule, depth, alignment.slope)
            shares[:, index] = move_shape(shares[:, index], move)
            fitted[:, index] = move_shape(fitted[:, index], move)
        return Expected(shares, fitted)

    def _register(
        self,
        profile: ScanProfile,
        alignment: Alignment,
        appearance: Appearance,
        size: tuple[int, int],
    ) -> Expected:
        rule, (places, slope) = self.rule, (alignment.positions, abs(alignment.slope))
        described = profile.self_similarity.numpy().astype(np.float32)  # type: ignore[union-attr]
        # beyond the ends the last slice goes on, but counts for nothing
        support = map_shapes(described, np.clip(places, 0, profile.depth - 1), 0, size)
        known = np.pad(np.ones_like(described[:, :1]), ((1, 1), (0, 0), (0, 0), (0, 0)))
        field = displacement(
            appearance.self_similarity,
            support,
            map_shapes(known, places, 1, size)[:, 0],
            appearance.through,
            round(rule.slices(profile.depth) / slope),
        )
        shapes = profile.shapes.transpose(0, 1).numpy().astype(np.float32) / 255
        padded = np.pad(shapes, ((1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
        # behind the ends there is nothing, or what was cut off goes on: as likely as not
        padded[[0, -1]] = np.minimum(
            padded[[0, -1]], 0.5 * profile.open_ends.T.numpy()[..., None, None]
        )
        bent = warp_shapes(map_shapes(padded, places, 1, size), field).numpy()
        share = rule.registered_share
        shares = blur_each(bent, share * rule.blur, share * rule.blur_slices / slope)
        fitted = blur_each(bent, _FITTED_BLUR, _FITTED_BLUR_SLICES / slope)
        return Expected(torch.from_numpy(shares), torch.from_numpy(fitted))

    @staticmethod
    def _map(
        shapes: np.ndarray, positions: np.ndarray, blur_slices: float, size: tuple[int, int]
    ) -> Tensor:
        return map_shapes(shapes, positions, pad_slices(blur_slices), size)
