"""A bundle with `fit` as a subject: a small network of each fold's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsmis_components.bundle import parsed_config
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import errors_of_commands
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.data.volumes import Volume, load_label
from fsmis_components.evaluation.subjects.base import Group, Subject
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.fitting import FITTED, GEOMETRY_KNOBS, FolderFit, fit_of_bundle
from fsmis_components.support.support_set import SupportSet


class FittedBundle(BundleSubject):
    """Fit a bundle to the support and to scans of the fold without their labels.

    Inductive: to the scans that are neither tested nor support; the student answers for the tested
    ones, which no part of the fit has seen. Transductive, as a user does it: to all scans but the
    support; a tested scan gets what the folder `fitted` has for it, gate included.

    Args:
        bundle_root: the bundle's folder.
        knobs: of its `fit.json`; `weights` may also be a folder that `benchmark.py train` filled.
        transductive: see above.

    Raises:
        DataError: no bundle there, no such knob, or no weights.
    """

    labelled = ("all",)
    predict_told = Subject.predict_told  # the student matches no slices

    def __init__(
        self,
        bundle_root: str | Path,
        knobs: Mapping[str, Any] | None = None,
        transductive: bool = False,
    ) -> None:
        self.root = bundle_folder(bundle_root)
        self.fit_knobs = dict(knobs or {})
        parsed_config(self.root, "fit", self.fit_knobs)  # refuses unknown knobs
        weights = self.fit_knobs.pop("weights", "shipped")
        geometry = {name: self.fit_knobs[name] for name in GEOMETRY_KNOBS if name in self.fit_knobs}
        super().__init__(self.root, weights, geometry)
        self.transductive = transductive
        self.name += ", fitted, transductive" if transductive else ", fitted"
        self._scans: list[Path] = []
        self._kept = Path()
        self._fit: FolderFit | None = None

    def see(self, others: Sequence[Path], tested: Sequence[Path], folder: Path) -> None:
        """See `Subject.see`."""
        self._scans = [*others, *(tested if self.transductive else [])]
        self._kept = folder
        self._fit = None

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        return {
            **super().identity(fold, group),
            "fit": self.fit_knobs,
            "config": file_hash(self.root / "configs" / "fit.json"),
            "scans": {path.name: file_hash(path) for path in self._scans},
        }

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`; the first query of a support fits, or takes up a fit."""
        if self._fit is None:
            knobs = {**self.fit_knobs, "weights": str(self.weights)}
            fit = fit_of_bundle(self.root, self._kept, support, self._scans, knobs)
            with errors_of_commands():
                fit.run()
            self._fit = fit
        if not self.transductive:
            return self._fit.inferer.segment_volume(query_image, self._fit.student).label
        cases = find_cases(self._kept / "scans", labels="never")
        stems = {case.image: case.stem for case in cases}
        stem = stems[Path(query_image.title).absolute()]
        mask = self._kept / FITTED / f"{stem}_seg.nii.gz"
        return np.asarray(load_label(mask, query_image).data)
