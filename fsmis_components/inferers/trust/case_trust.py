"""How far the result of one scan can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fsmis_components.data.geometry import TILTED, SliceView
from fsmis_components.encoding.slice_descriptors import CELLS, layout_similarity
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.trust.meter import Measures, expected_dice
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
# features of a mirrored image are not the mirrored features of the image, so a pack that has only
# these says less: its gain counts from here
_ROUGH = 0.03


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
    plain, *mirrored = (
        align(descriptors, each, slope).similarity
        + (_LAYOUT * layout_similarity(descriptors, each.float()) if known else 0.0)
        for each in seen
    )
    return max(mirrored) - plain - (0.0 if known else _ROUGH)


def _views(profile: ScanProfile) -> tuple[np.ndarray, list[Tensor]]:
    """Slices of a support scan, and their descriptors as they are and mirrored."""
    if profile.mirrored is not None:
        places = mirror_places(profile.depth)
        return places, [profile.descriptors[places], *profile.mirrored]
    grids = profile.descriptors.unflatten(1, (-1, CELLS, CELLS))
    turned = [grids.flip([2 + axis for axis in axes]).flatten(1) for axes in MIRRORS]
    return np.arange(profile.depth), [profile.descriptors, *turned]
