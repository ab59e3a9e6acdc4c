"""The files that a folder run writes for one scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmis_components.data.cases import Case
from fsmis_components.data.stored_array import chunks
from fsmis_components.data.volumes import Volume, save_mask, save_shares
from fsmis_components.inferers.segmentation import Segmentation, smallest_label_dtype
from fsmis_components.reporting.drawing import save_overlay
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import Structure, SupportScan


@dataclass(frozen=True)
class CaseFiles:
    """Where the results of a case go.

    Args:
        mask: label map on the scan's own grid.
        overlay: picture.
        uncertainty: map on the scan's own grid; None where it is not asked for.
    """

    mask: Path
    overlay: Path
    uncertainty: Path | None

    @classmethod
    def of(cls, case: Case, output_dir: str | Path, uncertainty: bool) -> CaseFiles:
        """The files of a case below an output folder."""
        folder = Path(output_dir)
        return cls(
            mask=folder / f"{case.stem}_seg.nii.gz",
            overlay=folder / "overlays" / f"{case.stem}.png",
            uncertainty=folder / f"{case.stem}_uncertainty.nii.gz" if uncertainty else None,
        )

    @property
    def paths(self) -> list[Path]:
        """All files, the mask last to be written and so the sign that a case is complete."""
        return [path for path in (self.overlay, self.uncertainty, self.mask) if path is not None]

    def write(
        self,
        image: Volume,
        label: np.ndarray,
        result: Segmentation,
        ready: Callable[[Path], object] | None = None,
    ) -> None:
        """Write everything of a label map (X, Y, Z) after any post-processing.

        `ready` is called with the mask under a hidden name, before it gets its own.
        """
        pack = result.pack
        smallest = smallest_label_dtype(int(label.max(initial=0)))
        label = label.astype(smallest, copy=False)
        save_overlay(self.overlay, image, label, pack.structures, pack.grid, self.overlay.stem)
        if self.uncertainty is not None and result.uncertainty is not None:
            save_shares(self.uncertainty, result.uncertainty, like=image)
        save_mask(self.mask, label, like=image, ready=ready)

    def take_over(
        self,
        scan: SupportScan,
        mask: Path,
        pack: SupportPack,
        ready: Callable[[Path], object] | None = None,
    ) -> None:
        """Write everything for a mask that a person has corrected.

        A file in its final place is not touched, nor is `ready` called for it.
        """
        label = np.asarray(scan.label.data)
        save_overlay(self.overlay, scan.image, label, pack.structures, pack.grid, self.overlay.stem)
        if self.uncertainty is not None:  # nothing is left to doubt
            save_shares(self.uncertainty, np.zeros(label.shape, np.uint8), like=scan.image)
        if mask.resolve() != self.mask.resolve():
            save_mask(self.mask, label, like=scan.image, ready=ready)


def volumes_ml(
    label: np.ndarray, affine: np.ndarray, structures: Sequence[Structure]
) -> dict[str, float]:
    """Millilitres per structure column of a label map whose affine is in millimetres."""
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0
    return {
        structure.column: voxel
        * sum(int(np.count_nonzero(chunk == structure.value)) for chunk in chunks(label))
        for structure in structures
    }
