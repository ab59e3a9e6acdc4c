"""The gate: what says, without any label of a scan, which mask of it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EMPTY = 1e-3  # millilitres; less counts as not found


@dataclass(frozen=True)
class GateRule:
    """When a mask is believed; the record of a run keeps it."""

    # by which a volume may differ from what is usual among the labelled scans and the folder
    largest_ratio: float = 2.5
    least_expected: float = 0.2  # Dice of the teacher's mask below which it is not learned
    # mean Dice of the last student with the judges below which a plausible teacher's mask stays
    least_agreement: float = 0.5
    teacher_share: float = 0.75  # what that mask adds to the last student's probabilities


GATE = GateRule()


def usual_volume(labelled: Sequence[float], found: Sequence[float]) -> float:
    """The median volume of a structure in millilitres, masks of nothing left out; 0: unknown.

    The labelled scans weigh as much as all masks that were found: most masks of a folder may be
    wrong in one way.
    """
    seen = [[volume for volume in volumes if volume > _EMPTY] for volumes in (labelled, found)]
    logarithms = [np.median(np.log(each)) for each in seen if each]
    return float(np.exp(np.mean(logarithms))) if logarithms else 0.0


def doubtful_masks(
    volumes: Sequence[float], expected: Sequence[float], usual: Sequence[float]
) -> tuple[bool, ...]:
    """Which of the teacher's masks of a scan are not to be learned.

    Args:
        volumes: of each structure, in millilitres.
        expected: Dice of each structure.
        usual: `usual_volume` of each structure.
    """
    return tuple(
        _ratio(volume, each) > GATE.largest_ratio or dice < GATE.least_expected
        for volume, dice, each in zip(volumes, expected, usual, strict=True)
    )


def judge(
    masks: Sequence[np.ndarray], voxel_ml: float, expected: float, usual: float
) -> tuple[bool, float]:
    """Whether the teacher's mask of a structure stays, and which Dice is expected of the answer.

    The student answers, unless what it found is of an unusual size, or its judges see something
    else, while what the teacher found is of a usual size. A structure that the student does not
    find is the teacher's: of many structures the small ones are learned last.

    Args:
        masks: those of the last student, of two judges, which learned from disjoint halves of the
            folder, and of the teacher.
        voxel_ml: millilitres of a voxel.
        expected: Dice of the teacher's mask.
        usual: see `usual_volume`.
    """
    student, first, second, teacher = masks
    student_ml, teacher_ml = (voxel_ml * int(mask.sum()) for mask in (student, teacher))
    judges = 0.5 * (mask_dice(student, first) + mask_dice(student, second))
    doubted = _ratio(student_ml, usual) > GATE.largest_ratio or judges < GATE.least_agreement
    plausible = _ratio(teacher_ml, usual) <= GATE.largest_ratio
    stays = student_ml <= _EMPTY or (doubted and plausible)
    # three views of one mask; where the teacher's stays, what the students see counts too
    return stays, (judges + mask_dice(student, teacher) + expected) / 3


def _ratio(volume: float, usual: float) -> float:
    """How many times larger or smaller than usual; infinite for nothing."""
    if usual <= 0:
        return 1.0
    return max(volume / usual, usual / volume) if volume > _EMPTY else float("inf")


def mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice in [0, 1]; 0 where both are empty, as nothing speaks for such masks."""
    size = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / size if size else 0.0
