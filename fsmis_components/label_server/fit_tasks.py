"""Train as an annotator expects it: `fit` to what is labelled, and its student as a model.

The fits of a bundle lie in a folder of their own, each named after what it was made from, so that
one which was stopped is taken up and one of other labels is another. A file says which is offered.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirstd, LoadImaged
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.infer.bundle import BundleInferTask

import fsmis_components
from fsmis_components.data.atomic import atomic_write_text, lock_folder
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.request_error import RequestError, client_errors
from fsmis_components.data.run_record import finished_scans
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.fitting import FITTED, GEOMETRY_KNOBS, fit_of_bundle
from fsmis_components.label_server.tasks import FewShotTask, Result
from fsmis_components.selection import load_stack
from fsmis_components.support.support_request import common_structures, relabel
from fsmis_components.support.support_set import (
    SupportSet,
    choose_structures,
    column_name,
    label_names,
)
from fsmis_components.transforms.load_volume import MOST_IN_MEMORY, LoadVolumed

_PRESENT = "present"  # names the folder of the fit whose student is offered

logger = logging.getLogger(__name__)


class FitTask(TrainTask):
    """Fit a bundle to all scans of the datastore: labelled ones are the support.

    A request may hold `minutes` of the whole fit; 0: as many batches as `fit.json` says. Progress
    is what `FolderFit` writes; a second request with the same labels goes on where one was stopped.

    Args:
        task: the bundle; its labelled volumes are the support, its weights those of the teacher.
        folder: of the bundle's fits.
    """

    def __init__(self, task: FewShotTask, folder: Path) -> None:
        super().__init__("A small network for these scans, fitted to what is labelled.")
        self.task = task
        self.folder = folder

    def config(self) -> dict[str, Any]:
        """Options that clients show."""
        return {"minutes": 0}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Fit, and offer the student.

        Raises:
            RequestError: nothing is labelled, spacings are not trusted, or the fit failed; what was
                offered before stays.
        """
        root = Path(self.task.bundle_path)
        knobs = {name: self.task.knob(name) for name in GEOMETRY_KNOBS}
        if knobs["ignore_spacing"]:
            raise RequestError(
                "training: the bundle's ignore_spacing is true, and the student that a server "
                "offers trusts the spacing of headers; use the command `fsmis fit`."
            )
        if minutes := request.get("minutes"):
            knobs["minutes"] = minutes
        with client_errors():
            labelled, labelled_ids = self._labelled()
            scans = _readable_scans(datastore, labelled_ids)
            name = self._name(labelled, scans, [knobs, file_hash(root / "configs" / "fit.json")])
            with lock_folder(self.folder):
                fit = fit_of_bundle(root, self.folder / name, labelled, scans, knobs)
                try:
                    fit.run()
                finally:
                    # also where single scans failed: then it is the last thing that is written
                    if (self.folder / name / FITTED / "report.html").is_file():
                        self._offer(name)
        return {"model": request.get("model"), "labelled": len(labelled_ids), "scans": len(scans)}

    def _labelled(self) -> tuple[SupportSet, list[str]]:
        """The labelled volumes, their values 1..N in the order of the structures, and their ids."""
        usable = self.task.usable()
        if not usable:
            raise RequestError("training: no scan has a label that can serve; label one.")
        names, values = common_structures(usable)
        numbers = {value: number for number, value in enumerate(sorted(names), 1)}
        scans = [
            relabel(volume.load(), {own: numbers[value] for own, value in common.items()})
            for volume, common in zip(usable, values, strict=True)
        ]
        numbered = {numbers[value]: name for value, name in names.items()}
        structures = choose_structures(None, sorted(numbered), numbered, "labels")
        return SupportSet(tuple(scans), structures, "labels"), [each.id for each in usable]

    def _name(self, labelled: SupportSet, scans: Sequence[Path], settings: list[Any]) -> str:
        """A name for all that decides a fit."""
        labels = [
            [
                str(scan.image.source),
                hashlib.sha256(np.asarray(scan.label.data).tobytes()).hexdigest(),
            ]
            for scan in labelled.scans
        ]
        parts = [
            *(fsmis_components.__version__, file_hash(Path(str(self.task.get_path())))),
            *(labels, [each.name for each in labelled.structures]),
            *([[str(path), file_hash(path)] for path in scans], settings),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def _offer(self, name: str) -> None:
        """Offer a finished fit; the former one is kept for requests that are being answered."""
        former = present_fit(self.folder)
        atomic_write_text(self.folder / _PRESENT, name)
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name != name and folder != former:
                shutil.rmtree(folder)


def _readable_scans(datastore: Datastore, labelled: Collection[str]) -> list[Path]:
    """The scans without a label; those that cannot be learned from are told in the log."""
    found = []
    for id in sorted(set(datastore.list_images()) - set(labelled)):
        path = Path(datastore.get_image_uri(id))
        try:
            load_stack(path)
        except DataError as error:
            logger.warning("Not trained on: %s", error)
        else:
            found.append(path)
    if not found:
        raise RequestError(
            "training: the datastore holds no other scan that can be read; add some."
        )
    return found


def present_fit(folder: Path) -> Path | None:
    """The fit of a bundle whose student is offered; None: there is none."""
    note = folder / _PRESENT
    fit = folder / note.read_text(encoding="utf-8") if note.is_file() else None
    known = fit is not None and (fit / FITTED / "bundle" / "models" / "model.pt").is_file()
    return fit if known else None


class FittedTask(BundleInferTask):
    """The student of a fit: a MONAI bundle that stands alone, served by MONAI Label's own task.

    A scan that was in the fit gets the mask that the fit has for it, which its gate has judged.
    Masks hold 1..N in the order of the structures, as those of `FewShotTask`.

    Args:
        fit: the folder of the fit.
        conf: of the app.
        studies_dir: see `LoadVolumed`.
    """

    def __init__(self, fit: Path, conf: dict[str, str], studies_dir: str | None) -> None:
        super().__init__(
            str(fit / FITTED / "bundle"), conf, pre_filter=[LoadImaged, EnsureChannelFirstd]
        )
        self.fit = fit
        self.studies_dir = studies_dir
        self.dimension = 3  # the metadata describes the network, which sees slices
        self.description = "A small network that was fitted to the scans of this server."
        # the metadata's names are written small
        self.labels = {name: value for value, name in label_names(fit / "labelled").items()}

    def pre_transforms(self, data: dict[str, Any] | None = None) -> Sequence[Callable[..., Any]]:
        """Those of the bundle, but what may be read is what the other models read."""
        load = LoadVolumed("image", studies_dir=self.studies_dir)
        return [load, *super().pre_transforms(data)]

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Result:
        """Segment a scan, by MONAI Label's request.

        Raises:
            RequestError: the scan cannot be used.
        """
        with client_errors():
            fitted = finished_scans(self.fit / FITTED).get(file_hash(Path(str(request["image"]))))
            if fitted is None:
                file, result = super().__call__(request, callbacks)
                warnings = ["The scan was not in the fit, so nothing has judged its mask."]
                expected = {}
            else:
                file, result = self._written(request, fitted.case)
                warnings = [fitted.warning] if fitted.warning else []
                expected = {
                    name: round(fitted.expected_dice[column_name(name)], 3) for name in self.labels
                }
        result |= {
            "label_names": dict(self.labels),
            "structures": dict(self.labels),
            "expected_dice": expected,
            "support": {"source": "fit"},
            "warnings": warnings,
        }
        return file, result

    def _written(self, request: dict[str, Any], case: str) -> tuple[str, dict[str, Any]]:
        """The mask of a scan that was in the fit, in the format of the request."""
        image = load_image(str(request["image"]), MOST_IN_MEMORY)
        mask = load_label(self.fit / FITTED / f"{case}_seg.nii.gz", image)
        data = {**request, "image_path": str(request["image"])}
        voxels = torch.from_numpy(np.ascontiguousarray(mask.data))
        data[self.key_pred] = MetaTensor(voxels, affine=torch.from_numpy(image.affine))
        file, _ = self.writer(data)
        return file, {}
