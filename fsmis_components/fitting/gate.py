"""The gate: what says, without any label of a scan, which mask of it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_EMPTY = 1e-3  # millilitres; less counts as not found


@dataclass(frozen=True)
class GateRule:
    """When a mask is believed.

    Attributes:
        largest_ratio: a volume more than so many times larger or smaller than is usual among the
            labelled scans and the folder is implausible.
        least_agreement: Dice of the two half students below which neither is believed where the
            teacher's mask is plausible.
        least_expected: expected Dice of the teacher's mask below which it is not learned.
    """

    largest_ratio: float = 2.5
    least_agreement: float = 0.5
    least_expected: float = 0.2


@dataclass(frozen=True)
class UsualVolumes:
    """What is usual of one structure: its median volume in millilitres, over labelled scans too."""

    median: float

    @classmethod
    def of(cls, labelled: Sequence[float], found: Sequence[float]) -> UsualVolumes:
        """From volumes of labelled scans and of masks, those of nothing left out.

        The labelled ones weigh as much as all masks together: most masks of a folder may be wrong
        in one way.
        """
        masks = [volume for volume in found if volume > _EMPTY]
        drawn = [volume for volume in labelled if volume > _EMPTY]
        logarithms = [np.median(np.log(each)) for each in (drawn, masks) if each]
        return cls(float(np.exp(np.mean(logarithms))) if logarithms else 0.0)

    def ratio(self, volume: float) -> float:
        """How many times larger or smaller than usual; infinite for nothing."""
        if self.median <= 0:
            return 1.0
        if volume <= _EMPTY:
            return float("inf")
        return max(volume / self.median, self.median / volume)


def doubtful_masks(
    volumes: Mapping[str, Sequence[float]],
    expected: Mapping[str, Sequence[float]],
    usual: Sequence[UsualVolumes],
    rule: GateRule,
) -> dict[str, tuple[bool, ...]]:
    """Which masks of the teacher are not to be learned.

    Args:
        volumes: per scan, millilitres of each structure.
        expected: per scan, expected Dice of each structure.
        usual: per structure.
        rule: when a mask is believed.
    """
    return {
        scan: tuple(
            each.ratio(volume) > rule.largest_ratio or dice < rule.least_expected
            for volume, dice, each in zip(volumes[scan], expected[scan], usual, strict=True)
        )
        for scan in volumes
    }


@dataclass(frozen=True)
class Opinion:
    """What is known of one structure's masks in one scan.

    Attributes:
        volumes: millilitres by the last student, the first and second judge, the teacher.
        judges: Dice of the two judges, students that learned from disjoint halves of the folder.
        student: mean Dice of the last student with the judges.
        teacher: mean Dice of the teacher with the judges.
        expected: expected Dice of the teacher's mask.
    """

    volumes: tuple[float, ...]
    judges: float
    student: float
    teacher: float
    expected: float

    @classmethod
    def of(cls, masks: Sequence[np.ndarray], voxel: float, expected: float) -> Opinion:
        """From the masks of the last student, two judges and the teacher; voxel in millilitres."""
        student, first, second, teacher = masks
        return cls(
            tuple(voxel * int(mask.sum()) for mask in masks),
            mask_dice(first, second),
            0.5 * (mask_dice(student, first) + mask_dice(student, second)),
            0.5 * (mask_dice(teacher, first) + mask_dice(teacher, second)),
            expected,
        )


@dataclass(frozen=True)
class Verdict:
    """Who answers for a structure of a scan, and what is expected of it."""

    teacher: bool
    expected_dice: float


def mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice in [0, 1] of two masks of one shape; 1 where both are empty."""
    size = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / size if size else 1.0


def decide(opinions: Sequence[Opinion]) -> list[Verdict]:
    """Who answers for each structure of a scan."""
    return [Verdict(False, opinion.student) for opinion in opinions]
