"""The Dice that a structure of a result is expected to have, without its label."""

from __future__ import annotations

from fsmis_components.inferers.trust.meter import Measures

# Dice = _OFFSET + _SLOPE * the geometric mean of the two measures: fitted on ACDC alone, so that
# CHAOS-T2 and hippocampus could test it
_OFFSET, _SLOPE = -0.47, 1.48


def expected_dice(measures: Measures) -> float:
    """Expected Dice in [0, 1]; 0 where nothing was found.

    Each measure sees what the other cannot: a confident mask in the wrong place has little
    agreement, and a mask that only follows the expected shape has little certainty.
    """
    both = (measures.certainty * measures.agreement) ** 0.5
    return min(max(_OFFSET + _SLOPE * both, 0.0), 1.0)
