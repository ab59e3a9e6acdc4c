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
        least_expected: expected Dice of the teacher's mask below which it is not learned.
        least_agreement: mean Dice of the last student with the judges below which a plausible mask
            of the teacher stays.
        teacher_share: what the teacher's mask adds to the last student's probabilities.
    """

    largest_ratio: float = 2.5
    least_expected: float = 0.2
    least_agreement: float = 0.5
    teacher_share: float = 0.75


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
        student_volume: millilitres by the last student.
        teacher_volume: millilitres by the teacher.
        judges: mean Dice of the last student with the two judges, students that learned from
            disjoint halves of the folder; 0 where none found anything, as nothing speaks for it.
        teacher: Dice of the last student with the teacher.
        expected: expected Dice of the teacher's mask.
    """

    student_volume: float
    teacher_volume: float
    judges: float
    teacher: float
    expected: float

    @classmethod
    def of(cls, masks: Sequence[np.ndarray], voxel: float, expected: float) -> Opinion:
        """From the masks of the last student, two judges and the teacher; voxel in millilitres."""
        student, first, second, teacher = masks
        return cls(
            voxel * int(student.sum()),
            voxel * int(teacher.sum()),
            0.5 * (mask_dice(student, first) + mask_dice(student, second)),
            mask_dice(student, teacher),
            expected,
        )


@dataclass(frozen=True)
class Verdict:
    """Who answers for a structure of a scan, and what is expected of it."""

    teacher: bool
    expected_dice: float


def mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice in [0, 1] of two masks of one shape; 0 where both are empty."""
    size = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / size if size else 0.0


def decide(
    opinions: Sequence[Opinion], usual: Sequence[UsualVolumes], rule: GateRule
) -> list[Verdict]:
    """Who answers for each structure of a scan.

    The student does, unless what it found is of an unusual size, or its judges see something else,
    while what the teacher found is of a usual size. A structure that the student does not find is
    the teacher's: of many structures the small ones are learned last.
    """
    verdicts = []
    for each, volumes in zip(opinions, usual, strict=True):
        student, teacher = volumes.ratio(each.student_volume), volumes.ratio(each.teacher_volume)
        doubted = student > rule.largest_ratio or each.judges < rule.least_agreement
        # three views of one mask; where the teacher's stays, what the students see counts too
        expected = (each.judges + each.teacher + each.expected) / 3
        missed = each.student_volume <= _EMPTY
        stays = missed or (doubted and teacher <= rule.largest_ratio)
        verdicts.append(Verdict(stays, expected))
    return verdicts
