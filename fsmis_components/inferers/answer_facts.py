"""What a person who asked for a mask is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fsmis_components
from fsmis_components.inferers.trust import CaseTrust
from fsmis_components.support.requested import Answer


def answer_facts(
    answer: Answer, trust: CaseTrust | None, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Which support answered, what the values of the mask mean and how far to trust it.

    Args:
        answer: the support.
        trust: of the mask; None where no shapes were expected.
        warnings: why the mask should be doubted.

    Returns:
        Values for JSON.
    """
    pack = answer.pack
    names = [structure.name for structure in pack.structures]
    facts: dict[str, Any] = {
        "support": {
            "source": answer.source,
            "scans": [profile.name for profile in pack.profiles],
        },
        "structures": {structure.name: structure.value for structure in pack.structures},
        "warnings": [*answer.notes, *warnings],
        "fsmis_components": fsmis_components.__version__,
    }
    if pack.calibration is not None:
        facts["support"]["self_test"] = pack.calibration.describe(pack.structures)
    if trust is not None:
        rounded = [round(value, 3) for value in trust.expected_dice]
        facts["expected_dice"] = dict(zip(names, rounded, strict=True))
    return facts
