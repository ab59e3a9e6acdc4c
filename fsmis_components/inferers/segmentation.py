"""What a segmented scan comes with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsmis_components.data.errors import DataError
from fsmis_components.inferers.trust import CaseTrust, ScanCheck
from fsmis_components.support.support_pack import SupportPack


@dataclass(frozen=True)
class Segmentation:
    """A segmented scan, in its stored axis order."""

    label: np.ndarray  # (X, Y, Z), the support's label values, 0 elsewhere
    # uint8 (X, Y, Z), 1 minus the largest probability in steps of 1 / 255; None unless asked
    uncertainty: np.ndarray | None
    pack: SupportPack  # the support pack that was used
    trust: CaseTrust | None  # what is expected of it; None where no shapes were expected
    scan: ScanCheck  # what is known of the scan without the network

    @property
    def expected_dice(self) -> dict[str, float]:
        """The Dice that each structure's mask is expected to have, by its name."""
        expected = () if self.trust is None else self.trust.expected_dice
        return {each.name: dice for each, dice in zip(self.pack.structures, expected, strict=False)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the result should be doubted, a sentence each."""
        unlike = () if self.trust is None else (self.trust.warning,)
        return tuple(filter(None, (*self.scan.warnings, *unlike)))


def label_values(values: Sequence[int]) -> np.ndarray:
    """The values of structures, behind the background's 0, in the type of their label map."""
    return np.array([0, *values], label_dtype(max(values)))


def label_dtype(largest: int) -> type[np.integer]:
    """The type of label maps with these values: bytes where they fit, else what PyTorch knows."""
    if largest > np.iinfo(np.int32).max:
        raise DataError(f"label value {largest} is too large; relabel the support below 2**31.")
    return np.uint8 if largest <= np.iinfo(np.uint8).max else np.int32
