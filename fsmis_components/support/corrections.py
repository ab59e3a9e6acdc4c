"""Corrected masks: results that a person has put right, which join the support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmis_components.data.cases import Case, find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.nifti import is_nifti_name
from fsmis_components.data.run_record import masks_as_written
from fsmis_components.data.volume_names import strip_volume_suffix
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.support.support_set import Structure, SupportScan

_RESULT = "_seg"
_NO_MASK = "_uncertainty"


@dataclass(frozen=True)
class Correction:
    """A scan of the folder and its corrected mask."""

    case: Case
    mask: Path

    def load(self) -> SupportScan:
        """The scan with its mask on the scan's grid.

        A file that cannot be used, or a mask of another scan, is a `DataError`.
        """
        image = load_image(self.case.image)
        return SupportScan(self.case.name, image, load_label(self.mask, image))

    def support_scan(self, structures: Sequence[Structure]) -> SupportScan | None:
        """The scan, to join a support; None where its mask is empty, which is right for some scans.

        A label value that is none of the structures is a `DataError`.
        """
        scan = self.load()
        known = {structure.value: structure.name for structure in structures}
        values = {int(value) for value in np.unique(np.asarray(scan.label.data))} - {0}
        unknown = sorted(values - set(known))
        if unknown:
            listing = ", ".join(f"{value} ({name})" for value, name in known.items())
            raise DataError(
                f"{self.mask}: holds label value {unknown[0]}, which is no structure of the "
                f"support ({listing}); correct the mask."
            )
        return scan if values else None


class Corrections:
    """The corrected masks of a folder (None: there are none) of the scans of another.

    A mask is named after its scan: for `image_7.nii.gz` it is `image_7_seg.nii.gz` or
    `image_7.nii.gz`. The folder may be the output folder of a run, in which some masks were
    corrected in place: then those count that are no longer as the run wrote them.
    """

    def __init__(self, corrections_dir: str | Path | None, dataset_dir: str | Path) -> None:
        self.corrections_dir = Path(corrections_dir) if corrections_dir else None
        self.dataset_dir = dataset_dir
        self._found: dict[str, Correction] | None = None

    def found(self) -> dict[str, Correction]:
        """Corrections by the stem of their scan, in natural order.

        Raises:
            DataError: there is no such folder, no mask in it, a mask of no scan, two of one scan,
                or an output folder that does not say what its run wrote.
        """
        if self._found is None:
            self._found = {} if self.corrections_dir is None else self._find(self.corrections_dir)
        return self._found

    def _find(self, folder: Path) -> dict[str, Correction]:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; check --corrections_dir.")
        cases = {case.stem: case for case in find_cases(self.dataset_dir, labels="never")}
        written = masks_as_written(folder)
        masks: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not is_nifti_name(path.name):
                continue
            name = strip_volume_suffix(path.name)
            if name.endswith(_NO_MASK):
                continue
            stem = name.removesuffix(_RESULT)
            if stem not in cases:
                raise DataError(
                    f"{path}: a corrected mask of no scan in {self.dataset_dir}; name it after its "
                    "scan, as image_7_seg.nii.gz for image_7.nii.gz, or remove it."
                )
            if stem in masks:
                raise DataError(
                    f"{path}: a second corrected mask of {stem} beside {masks[stem].name}; keep "
                    "one of the two."
                )
            if written is None or stem in written and file_hash(path) != written[stem]:
                masks[stem] = path
        if not masks:
            trouble = "no corrected mask" if written is None else "no mask was changed since"
            raise DataError(
                f"{folder}: {trouble}; correct one, name it as image_7_seg.nii.gz for "
                "image_7.nii.gz, or leave --corrections_dir out."
            )
        return {stem: Correction(cases[stem], masks[stem]) for stem in cases if stem in masks}
