"""Which support slices answer for which query slice, and which slices are looked at at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsmis_components.encoding.slice_descriptors import coarse_descriptors
from fsmis_components.inferers.z_alignment import Alignment, align
from fsmis_components.support.scan_profile import ScanProfile
from fsmis_components.support.sections import NUM_SECTIONS
from fsmis_components.support.support_pack import SupportPack

# labelled slices in a row that answer together: of thin slices few, because they show the same
_NEIGHBOURS, _THIN_NEIGHBOURS = 5, 3
_THIN = 5.1  # millimetres between slices
_SHARPNESS = 0.05  # of the similarity by which support scans are weighted
_BEHIND = 0.5  # share of a structure's extent for which it may go on behind the end of the support
# of a support scan's depth; what lies farther off is outside the blurred shapes of other planes
_OFF_CENTRE = 0.1
_LEAST_SHARE = 0.1  # a support scan of less weight is not asked


@dataclass(frozen=True)
class VolumeMatch:
    """Where a query lies in the support."""

    alignments: tuple[Alignment, ...]  # one per support scan
    shares: np.ndarray  # (K,) weights of the support scans, they add up to 1; 0: not asked
    section_weights: Tensor  # (D, N, S) >= 0; all zero where a structure is not looked for

    def is_centred(self, pack: SupportPack) -> bool:
        """Whether the middle of the query lies near that of each support scan that is asked.

        Cut along another axis, both scans are laid on each other by their middles.
        """
        scans = zip(self.alignments, pack.profiles, self.shares, strict=True)
        return all(
            abs(float(line.positions.mean()) / (profile.depth - 1 or 1) - 0.5) <= _OFF_CENTRE
            for line, profile, share in scans
            if share
        )


def match_volume(
    descriptors: Tensor,
    slice_spacing: float,
    pack: SupportPack,
    reach: float,
    slack: float = 0.0,
    tissues: Tensor | None = None,
) -> VolumeMatch:
    """Match a query, descriptors (D, F) of its slices, with every support scan.

    A structure is looked for as far beyond its extent in a support scan as a share `reach` of that
    scan's depth and `slack` slices. `tissues` are the query's `tissue_shares` (D, 9, h, w).
    """
    alignments = []
    for profile in pack.profiles:
        beside = None
        if tissues is not None and profile.tissues is not None:
            beside = coarse_descriptors(tissues, profile.shapes.shape[-2:]), profile.tissues
        slope = profile.slope_of(slice_spacing)
        alignments.append(align(descriptors, profile.descriptors, slope, beside=beside))
    shares = scan_shares(np.array([alignment.similarity for alignment in alignments]))
    weights = torch.zeros(len(descriptors), *pack.sections.shape[:2])
    valid = pack.sections.any(-1)  # (N, S)
    for scan, (profile, alignment) in enumerate(zip(pack.profiles, alignments, strict=True)):
        serving = torch.nonzero(pack.origins[:, 0] == scan).flatten()
        if not shares[scan] or not len(serving):
            continue
        places = pack.origins[serving, 1].numpy()
        most = neighbours_of(profile.slice_spacing)
        answering = neighbours(alignment.positions, places, valid[:, serving].numpy(), most)
        sought = search_range(alignment.positions, profile, reach * profile.depth + slack)
        answering &= sought[..., None]
        weights[:, :, serving] = torch.from_numpy(answering).float() * float(shares[scan])
    return VolumeMatch(tuple(alignments), shares, weights)


def scan_shares(similarity: np.ndarray) -> np.ndarray:
    """Weights of the support scans by their similarity to the query, (K,); they add up to 1."""
    shares = np.exp((similarity - similarity.max()) / _SHARPNESS)
    shares[shares < _LEAST_SHARE] = 0.0  # the most similar has 1
    return shares / shares.sum()


def neighbours_of(slice_spacing: float | None) -> int:
    """How many labelled slices answer together, by the millimetres between them; None: unknown."""
    return _THIN_NEIGHBOURS if slice_spacing is not None and slice_spacing < _THIN else _NEIGHBOURS


def neighbours(
    positions: np.ndarray, places: np.ndarray, valid: np.ndarray, most: int
) -> np.ndarray:
    """The labelled slice that is nearest to each query slice, and those beside it, bool (D, N, S).

    Slices answer together, up to `most`, only where they follow each other, also beyond an end,
    whose slice shows little of a structure. Query slices lie at `positions` (D,) in the support
    scan, of which the slices `places` (S,) serve, ascending; `valid`, bool (N, S), says in which of
    them a structure is labelled.
    """
    result = np.zeros((len(positions), *valid.shape), bool)
    for index, serves in enumerate(valid):
        if not serves.any():
            continue
        labelled = places[serves]
        row = np.cumsum(np.diff(labelled, prepend=labelled[0]) > 1)
        distance = np.abs(positions[:, None] - labelled)
        # slices of another row come after all of the own one
        distance[row != row[distance.argmin(1)][:, None]] = np.inf
        rank = distance.argsort(1, kind="stable").argsort(1)
        result[:, index, serves] = (rank < most) & np.isfinite(distance)
    return result


def search_range(positions: np.ndarray, profile: ScanProfile, around: float) -> np.ndarray:
    """Where each structure is looked for, bool (D, N): its extent and some slices around it.

    One that reaches the end of the scan may go on behind it, for half of its extent.
    """
    first, last = profile.extents.numpy().T  # NaN compares as False: not labelled in this scan
    before, after = around + profile.open_ends.numpy().T * _BEHIND * (last - first)
    places = positions[:, None]
    return (places >= first - before) & (places <= last + after)


def spread_thirds(depth: int, sections: Tensor) -> Tensor:
    """Weights (D, N, S) that give query slice z of D section floor(3 z / D) for every structure."""
    thirds = torch.arange(depth) * NUM_SECTIONS // depth
    return section_weights(thirds[:, None], sections)


def section_weights(chosen: Tensor, sections: Tensor) -> Tensor:
    """Weights (D, N, S), 0 or 1, that let the chosen section of each structure answer.

    `chosen`, (D, N) or (D, 1) for all, is section 0, 1 or 2 of `sections`, bool (N, S, 3) of a
    support pack; -1: the structure is absent, its weights are zero.
    """
    wanted = chosen[..., None] == torch.arange(NUM_SECTIONS)  # (D, N, 3)
    return (sections[None] & wanted[:, :, None]).any(-1).float()
