"""How far the result of one scan can be trusted: what says so is gathered slab by slab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.geometry import TILTED, SliceView
from fsmis_components.encoding.slice_descriptors import CELLS, layout_similarity
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.shape_prior import largest_channel, to_cells
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.encode import MIRRORS
from fsmis_components.support.scan_profile import ScanProfile, mirror_places
from fsmis_components.support.support_pack import SupportPack

_LARGEST_RATIO = 2.0  # of the extents of slices; scans of one kind differ by less
# along the best line through z: of scans of other kinds half lie below, but some of the same kind
# too, whose masks are good
_LEAST_SIMILARITY = 0.15
# mean expected Dice: scans of other kinds reach 0.35 (CT by a support of MR 0.6), those of the same
# kind start at 0.49 (13 organs of CT), save one heart of 18 at 0.34
_LEAST_EXPECTED = 0.4
_UNLIKE_EXPECTED = 0.6  # below which a scan of little similarity is doubtful
_LAYOUT = 8.0  # weight of where things lie in the mean slice, against what changes along z
_MIRROR_GAIN = 0.02  # no whole scan that lies as the support does has more, of parts one in thirty
_AGAINST = 0.04  # the line through z may lose half of it where the mean slice gains
# features of a mirrored image are not the mirrored features of the image, so a pack that has only
# these says less: its gain counts from here
_ROUGH = 0.03
_NOTHING = 1e-6
# Dice = _OFFSET + _SLOPE * the geometric mean of the two measures: fitted on ACDC alone, so that
# CHAOS-T2 and hippocampus could test it
_OFFSET, _SLOPE = -0.47, 1.48


@dataclass(frozen=True)
class Measures:
    """What is known of one structure of a result without any label of the query."""

    # Dice of the mask with its own probabilities, in [0, 1]: about what the true Dice would be if
    # each voxel were as probable as the margins say
    certainty: float
    # cosine of the mask with the support's shape where it was expected in the query, in [0, 1]
    agreement: float


class TrustMeter:
    """Sums over the slabs of a scan, from which the measures of each structure follow.

    Args:
        num_structures: N.
        cell: working pixels along the side of a cell of the shapes.

    Example:
        >>> meter = TrustMeter(num_structures=1, cell=4)
        >>> meter.add(torch.full((2, 1, 8, 8), 30.0), torch.ones(2, 1, 2, 2))
        >>> meter.result()
        [Measures(certainty=1.0, agreement=1.0)]
    """

    def __init__(self, num_structures: int, cell: int) -> None:
        self.cell = cell
        # per structure: see `add`
        self._sums = torch.zeros(num_structures, 6, dtype=torch.float64)

    def add(self, margins: Tensor, fitted: Tensor) -> None:
        """Take in some slices; each slice of a scan once.

        Args:
            margins: (n, N, H, W) at the working resolution as they decide, prior included.
            fitted: (n, N, h, w) the support's shapes at their place in the query, on their cells,
                in [0, 1].
        """
        # every second row and column is enough for sums over a structure, at a quarter of the cost
        stride = 2 if self.cell % 2 == 0 else 1
        thin = margins[..., ::stride, ::stride]
        logits = torch.cat([torch.zeros_like(thin[:, :1]), thin], 1)
        numbers = torch.arange(1, logits.shape[1], device=logits.device)[:, None, None]
        masks = (largest_channel(logits).unsqueeze(1) == numbers).float()
        cells = to_cells(masks, self.cell // stride)
        probabilities = logits.softmax(1)[:, 1:]
        parts = (
            probabilities * masks,
            probabilities,
            masks,
            cells * fitted,
            cells.square(),
            fitted.square(),
        )
        # slices in float32, the volume in float64: a structure may have 10^8 voxels
        self._sums += torch.stack([part.sum((2, 3)).double().sum(0) for part in parts], 1)

    def result(self) -> list[Measures]:
        """The measures of each structure; certainty and agreement are 0 where nothing was found."""
        return [
            Measures(
                certainty=2 * both / max(whole + pixels, _NOTHING),
                agreement=product / max((mask * shape) ** 0.5, _NOTHING),
            )
            for both, whole, pixels, product, mask, shape in self._sums.tolist()
        ]


def expected_dice(measures: Measures) -> float:
    """Expected Dice in [0, 1]; 0 where nothing was found.

    Each measure sees what the other cannot: a confident mask in the wrong place has little
    agreement, and a mask that only follows the expected shape has little certainty.
    """
    both = (measures.certainty * measures.agreement) ** 0.5
    return min(max(_OFFSET + _SLOPE * both, 0.0), 1.0)


@dataclass(frozen=True)
class Likeness:
    """How like the support a scan and its result are."""

    similarity: float  # of the alignment with the most similar support scan, in [-1, 1]
    reversed: bool  # whether its slices run against the support's
    mirror_gain: float  # similarity that mirrored slices would have more
    extent_ratio: float  # larger side of its slices over the support's
    expected_dice: float  # mean over the structures, in [0, 1]
    depth: int  # slices of the scan itself
    tilt: float = 0.0  # degrees between its slices and the support's, as headers tell


def out_of_support(like: Likeness) -> str:
    """A sentence where a scan seems of another body part, kind or orientation; or nothing.

    Some scans have little similarity even to their own kind, so that alone is no reason for a
    warning: what was found must be doubtful too.
    """
    if not 1 / _LARGEST_RATIO <= like.extent_ratio <= _LARGEST_RATIO:
        return (
            f"The slices are {like.extent_ratio:.2g} times as large as the support's: another body "
            "part, or a wrong spacing in a header; check the mask."
        )
    if like.tilt > TILTED:
        return (
            f"The slices are tilted by {like.tilt:.0f} degrees against the support's, so they show "
            "other sections of the body; check the mask, or label a scan that was cut alike."
        )
    if like.depth == 1:  # any direction through z fits it
        return (
            "The scan has one slice only, so nothing beside it tells where in the support it lies; "
            "give the whole volume, or check the mask."
        )
    if like.similarity < _LEAST_SIMILARITY and like.expected_dice < _UNLIKE_EXPECTED:
        return (
            f"The scan does not look like the support (similarity {like.similarity:.2f}, expected "
            f"Dice {100 * like.expected_dice:.0f}): another body part, contrast or orientation; "
            "check the mask."
        )
    # such a mask may be expected to be good, because a body is nearly its own mirror image
    if like.mirror_gain > _MIRROR_GAIN:
        return (
            "The slices look more like the support's when they are mirrored: the orientation in a "
            "header may be wrong, here or there; check the mask, and its left and right."
        )
    if like.reversed:
        return (
            "The slices run against the support's: the orientation in a header is wrong, here or "
            "there; check that left and right of the mask are right."
        )
    if like.expected_dice < _LEAST_EXPECTED:
        return (
            f"The support fits this scan badly (expected Dice {100 * like.expected_dice:.0f}): "
            "another body part or contrast, or a scan that needs a label of its own; check the "
            "mask."
        )
    return ""


@dataclass(frozen=True)
class CaseTrust:
    """What is expected of a result; no label of the scan was needed for it."""

    expected_dice: tuple[float, ...]  # per structure, in [0, 1]
    warning: str  # one sentence where the scan is unlike the support; empty otherwise

    @property
    def is_usable(self) -> bool:
        """Whether as much is expected as of scans of the support's kind."""
        return float(np.mean(self.expected_dice)) >= _LEAST_EXPECTED


def case_trust(
    measures: Sequence[Measures],
    match: VolumeMatch,
    view: SliceView,
    pack: SupportPack,
    mirrored: float = 0.0,
) -> CaseTrust:
    """Judge a result by the measures of a `TrustMeter` and how the scan was matched."""
    expected = tuple(expected_dice(each) for each in measures)
    scan = int(np.argmax([alignment.similarity for alignment in match.alignments]))
    best = match.alignments[scan]
    like = Likeness(
        similarity=best.similarity,
        reversed=best.slope < 0,
        mirror_gain=mirrored,
        extent_ratio=max(view.working_size) / view.grid.spatial_size,
        expected_dice=sum(expected) / len(expected),
        depth=view.depth,
        tilt=view.tilt if pack.profiles[0].oriented else 0.0,
    )
    return CaseTrust(expected, out_of_support(like))


def mirror_gain(
    descriptors: Tensor, slice_spacing: float, pack: SupportPack, match: VolumeMatch
) -> float:
    """How much more similar a query is to the support when one of them is mirrored.

    A header that swaps left and right, or anterior and posterior, leaves no other trace. The
    query's descriptors (D, F) are compared with some slices of a support scan as they are, and with
    these slices as the network saw them mirrored: along the best line through z, and by what lies
    where in their mean. Of packs without these, mirrored descriptors are compared along z only.

    Returns the likeness of the best mirrored slices less that of the plain ones, with the most
    similar support scan of those that were mirrored; negative for a scan that lies as the support
    does.
    """
    known = [scan for scan, each in enumerate(pack.profiles) if each.mirrored is not None]
    scans = known or range(len(pack.profiles))
    best = max(scans, key=lambda scan: match.alignments[scan].similarity)
    profile = pack.profiles[best]
    places, seen = _views(profile)
    # of evenly spaced slices; a scan of one slice has no distance between them
    step = float(places[1] - places[0]) if len(places) > 1 else 1.0
    slope = profile.slope_of(slice_spacing) / step
    plain, *mirrored = (align(descriptors, each, slope).similarity for each in seen)
    gains = np.array(mirrored) - plain
    if not known:
        return float(gains.max()) - _ROUGH
    lies, *turned = (layout_similarity(descriptors, each.float()) for each in seen)
    # both must speak: generated bodies were told mirrored by what lies where alone
    both = gains + _LAYOUT * (np.array(turned) - lies)
    return float(np.minimum(both, gains + _AGAINST).max())


def _views(profile: ScanProfile) -> tuple[np.ndarray, list[Tensor]]:
    """Slices of a support scan, and their descriptors as they are and mirrored."""
    if profile.mirrored is not None:
        places = mirror_places(profile.depth)
        return places, [profile.descriptors[places], *profile.mirrored]
    grids = profile.descriptors.unflatten(1, (-1, CELLS, CELLS))
    turned = [grids.flip([2 + axis for axis in axes]).flatten(1) for axes in MIRRORS]
    return np.arange(profile.depth), [profile.descriptors, *turned]
