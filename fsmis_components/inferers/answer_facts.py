"""What a person who asked for a mask is told about it."""

from __future__ import annotations

from typing import Any

import fsmis_components
from fsmis_components.inferers.segmentation import Segmentation
from fsmis_components.support.requested import Answer


def answer_facts(answer: Answer, result: Segmentation) -> dict[str, Any]:
    """Which support answered, what the values of the mask mean and how far to trust it.

    Args:
        answer: the support.
        result: the mask and what is expected of it.

    Returns:
        Values for JSON.
    """
    pack = answer.pack
    facts: dict[str, Any] = {
        "support": {
            "source": answer.source,
            "scans": [profile.name for profile in pack.profiles],
        },
        "structures": {structure.name: structure.value for structure in pack.structures},
        "warnings": [*answer.notes, *result.warnings],
        "fsmis_components": fsmis_components.__version__,
    }
    if pack.calibration is not None:
        facts["support"]["self_test"] = pack.calibration.describe(pack.structures)
    if expected := result.expected_dice:
        facts["expected_dice"] = {name: round(value, 3) for name, value in expected.items()}
    return facts
