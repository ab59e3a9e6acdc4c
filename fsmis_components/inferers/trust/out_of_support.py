"""A warning where a scan is of another kind than the support, or lies in another way."""

from __future__ import annotations

from dataclasses import dataclass

from fsmis_components.data.geometry import TILTED

_LARGEST_RATIO = 2.0  # of the extents of slices; scans of one kind differ by less
# along the best line through z: scans of other kinds reach 0.14, those of the same kind start at
# 0.18, save with short supports (the heart, ten slices alike), where a third lies below
_LEAST_SIMILARITY = 0.15
_SHORT = 16  # slices of a support that says little about z
_LEAST_EXPECTED = 0.4  # mean expected Dice below which a scan of little similarity is doubtful
# of scans that lie as the support does one in 100 has more; where stacks are short, one in ten
_MIRROR_GAIN, _SHORT_MIRROR_GAIN = 0.02, 0.05
_LEAST_MIRRORED = 0.2  # similarity in the mirror; a scan of another kind or noise reaches 0.16


@dataclass(frozen=True)
class Likeness:
    """How like the support a scan and its result are.

    Attributes:
        similarity: of the alignment with the most similar support scan, in [-1, 1].
        support_depth: slices of that scan.
        reversed: whether its slices run against the support's.
        mirror_gain: similarity that mirrored slices would have more.
        extent_ratio: larger side of its slices over the support's.
        expected_dice: mean over the structures, in [0, 1].
        depth: slices of the scan itself.
        tilt: degrees between its slices and the support's, as headers tell.
    """

    similarity: float
    support_depth: int
    reversed: bool
    mirror_gain: float
    extent_ratio: float
    expected_dice: float
    depth: int
    tilt: float = 0.0


def out_of_support(like: Likeness) -> str:
    """Say whether a scan looks as if it were of another body part, kind or orientation.

    Short stacks of like slices have little similarity even to their own kind, so there little
    similarity alone is no reason for a warning: what was found must be doubtful too.

    Returns:
        One sentence, or nothing.
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
    least = _MIRROR_GAIN if like.support_depth >= _SHORT else _SHORT_MIRROR_GAIN
    # before the similarity, which is little where a scan is mirrored
    if like.mirror_gain > least and like.similarity + like.mirror_gain > _LEAST_MIRRORED:
        return (
            "The slices look more like the support's when they are mirrored: the orientation in a "
            "header may be wrong, here or there; check the mask, and its left and right."
        )
    doubtful = like.support_depth >= _SHORT or like.expected_dice < _LEAST_EXPECTED
    if like.similarity < _LEAST_SIMILARITY and doubtful:
        return (
            f"The scan does not look like the support (similarity {like.similarity:.2f}, expected "
            f"Dice {100 * like.expected_dice:.0f}): another body part, contrast or orientation; "
            "check the mask."
        )
    if like.reversed:
        return (
            "The slices run against the support's: the orientation in a header is wrong, here or "
            "there; check that left and right of the mask are right."
        )
    return ""
