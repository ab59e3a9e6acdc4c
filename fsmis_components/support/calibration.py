"""What the support's test of itself found out, stored in the pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fsmis_components.support.support_set import Structure

_LEAST_DICE = 0.6  # below it, or where tests differ by more than the next, a structure is uncertain
_LARGEST_SPREAD = 0.15

HeldOut = Literal["scans", "slices", "nothing"]
_PARTS = {"scans": ("scan", "scans"), "slices": ("block of slices", "blocks of slices")}


@dataclass(frozen=True)
class StructureTest:
    """How well the support segments one structure of its own scans, each held out in turn."""

    mean: float | None  # Dice in [0, 1]; None where there was nothing to test
    spread: float  # standard deviation over the tests
    tests: int  # held-out parts
    # whole scans, or, where only one scan shows the structure, blocks of its labelled slices. The
    # latter is a test within one patient: it says less of the next patient
    held_out: HeldOut

    @property
    def uncertain(self) -> bool:
        """Whether masks of this structure should be looked at."""
        return self.mean is None or self.mean < _LEAST_DICE or self.spread > _LARGEST_SPREAD

    def describe(self) -> str:
        """The result in words, such as "88 ± 4 (3 scans held out)"."""
        if self.mean is None:
            return "not tested"
        figure = f"{100 * self.mean:.0f} ± {100 * self.spread:.0f}"
        uncertain = "uncertain, " if self.uncertain else ""
        one, many = _PARTS[self.held_out]
        return f"{uncertain}{figure} ({self.tests} {one if self.tests == 1 else many} held out)"


@dataclass(frozen=True)
class Calibration:
    """The support's test of itself."""

    tests: tuple[StructureTest, ...]  # one per structure, in the order of the pack

    def describe(self, structures: Sequence[Structure]) -> str:
        """One sentence for people: the expected Dice of each structure."""
        pairs = zip(structures, self.tests, strict=True)
        return "; ".join(f"{structure.name} {test.describe()}" for structure, test in pairs) + "."

    def selected(self, index: Sequence[int]) -> Calibration:
        """The calibration of some structures."""
        return Calibration(tuple(self.tests[place] for place in index))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """The calibration that `dataclasses.asdict` described."""
        return cls(tuple(StructureTest(**test) for test in values["tests"]))
