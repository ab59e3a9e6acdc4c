"""The app `apps/few_shot` of MONAI Label.

What it adds to the sample app `monaibundle`: the names of the labelled structures as label names, a
model for each of them and one that fills a scan by its own slices, a check of every label before it
is stored, a proposal which scan to label next, and a training that fits a small network to the
scans.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import name_to_device

import fsmis_components
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError, client_errors, is_own_file
from fsmis_components.encoding import FeatureCache, ScanEncoder
from fsmis_components.label_server.datastore import CheckedDatastore, remove_refused
from fsmis_components.label_server.fit_tasks import FitTask, FittedTask, present_fit
from fsmis_components.label_server.guard import RequestGuard
from fsmis_components.label_server.tasks import (
    FewShotTask,
    LabelValues,
    structure_task,
    this_scan_task,
)
from fsmis_components.selection import Compared, Describer, Preprocessing, propose
from fsmis_components.transforms.load_volume import NO_SCAN

_MOST_VOLUMES = 1000  # labels whose values are remembered
_CONFIG = Path("configs") / "inference.json"  # which makes a folder a bundle
NAME = "few_shot"
SECONDS = 60.0  # for scans that were not encoded yet; the server answers nobody meanwhile
_GEOMETRY = ("spatial_size", "modality", "slice_axis", "ignore_spacing")

logger = logging.getLogger(__name__)


class FewShotApp(MONAILabelApp):
    """The app; MONAI Label finds it by its base class.

    Args:
        app_dir: folder of the app.
        studies: folder of scans.
        conf: `models`: names or folders of bundles, separated by commas (ssl_alpnet);
            `skip_trainers`: true offers no training; `origins`: pages of other servers that may
            call this one, as https://viewer.example, separated by commas.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        _make_temporary_files_private()
        origins = (part.strip() for part in (conf or {}).get("origins", "").split(","))
        _guard_the_door([origin for origin in origins if origin])
        self.bundles = find_bundles(Path(app_dir), (conf or {}).get("models", "ssl_alpnet"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="Few-shot segmentation",
            description="Label a structure in one scan, and it is segmented in the others.",
            version=fsmis_components.__version__,
        )

    def init_datastore(self) -> Datastore:
        """A folder of scans that refuses labels which cannot serve."""
        if self.studies.startswith(("http://", "https://")):
            raise DataError(f"--studies: expected a folder of scans, got {self.studies}.")
        return CheckedDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """One model per bundle, for all structures; `info` adds the others."""
        values = LabelValues(_MOST_VOLUMES)
        self._tasks = {
            name: FewShotTask(str(path), self.conf, self.studies, values)
            for name, path in self.bundles.items()
        }
        self._fitted: dict[str, FittedTask] = {}
        return {**self._tasks, **self._part_tasks()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Per bundle one that fits."""
        if str(self.conf.get("skip_trainers", "false")).lower() == "true":
            return {}
        return {
            name: FitTask(task, self._fits(name))
            for name, task in self._tasks.items()
            if (self.bundles[name] / "configs" / "fit.json").is_file()
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Ours first: clients choose the first by default."""
        task = next(iter(self._tasks.values()))
        ours = FewShotStrategy(task, Path(self.studies) / ".few_shot")
        return {"few_shot": ours, "first": First(), "random": Random()}

    def _fits(self, name: str) -> Path:
        """The folder of a bundle's fits."""
        return Path(self.studies) / ".few_shot" / "fit" / name

    def info(self) -> dict[str, Any]:
        """What clients show; what was labelled since has its models now."""
        self._offer_models()
        return super().info()

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment; what was labelled since the last `info` is known too."""
        if request.get("model") not in self._infers:
            self._offer_models()
        with remove_refused(request.get("image"), request.get("label")):
            if request.get("model") not in self._infers:
                raise DataError("model: there is no such model on this server.")
            image = request.get("image")
            if not (image in self.datastore().list_images() or is_own_file(image, self.studies)):
                # one sentence for all models, which does not tell which files there are
                raise DataError(NO_SCAN)
            return dict(super().infer(request, datastore))

    def train(self, request: dict[str, Any]) -> Any:
        """Train; the guard let nothing in but what is known by name and type."""
        if request.get("model") not in self._trainers:
            raise RequestError("model: there is no such training on this server.")
        with client_errors():
            return super().train(request)

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Segment many scans."""
        if not torch.cuda.is_available():  # the base class would divide by the number of GPUs
            request = {**request, "multi_gpu": False}
        return super().batch_infer(request, datastore)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Propose a scan."""
        if request.get("strategy") not in self._strategies:
            raise RequestError("strategy: there is no such strategy on this server.")
        with client_errors():
            return dict(super().next_sample(request))

    def _offer_models(self) -> None:
        # other threads see the old models or the new ones, never half of them
        self._infers = {**self._tasks, **self._part_tasks()}

    def _part_tasks(self) -> dict[str, InferTask]:
        """Models that make sense once something is labelled."""
        parts: dict[str, InferTask] = {}
        for name, task in self._tasks.items():
            structures = task.slugs()
            if structures:
                parts[f"{name}_this_scan"] = this_scan_task(task)
            for slug, structure in structures.items():
                parts[f"{name}_{slug}"] = structure_task(task, structure)
            if (fit := present_fit(self._fits(name))) is not None:
                parts[f"{name}_fitted"] = self._student(name, fit)
        return parts

    def _student(self, name: str, fit: Path) -> FittedTask:
        """The model of a fit, made once."""
        known = self._fitted.get(name)
        if known is None or known.fit != fit:
            studies = os.environ.get("MONAI_LABEL_STUDIES")
            known = self._fitted[name] = FittedTask(fit, self.conf, studies)
        return known


class FewShotStrategy(Strategy):
    """Propose a scan and the slices of it to label.

    All scans, labelled ones too, are encoded by one rule that needs no support: a new label changes
    nothing of it, so that the scan after it is proposed at once. The task's network encodes, its
    support says where structures are expected; what is known of scans is kept in the folder.
    """

    def __init__(self, task: FewShotTask, folder: Path) -> None:
        super().__init__("The scan that stands best for those that are not labelled")
        self.task = task
        self.cache = FeatureCache(folder / "encoded")
        self._known: Compared = {}  # so that a new scan is compared, not all of them again
        self._lock = Lock()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The id and what to label; None where nothing is left.

        That no scan that is left can be used is a `DataError`.
        """
        labelled = set(datastore.get_labeled_images())
        ids = sorted(datastore.list_images())
        if labelled.issuperset(ids):
            return None
        network = self.task.present_network(name_to_device(request.get("device", "cuda")))
        scans = [Case(id, Path(datastore.get_image_uri(id)), alias=id) for id in ids]
        geometry = {name: self.task.knob(name) for name in _GEOMETRY}
        with self._lock:
            encoder = ScanEncoder(network, self.task.knob("batch_size"), self.task.knob("amp"))
            describer = Describer(encoder, Preprocessing.of_first(scans, geometry), self.cache)
            found = propose(
                describer,
                scans,
                labelled=labelled,
                pack=self.task.support_pack(network),
                proposed_before={id: _proposed(datastore, id) for id in ids},
                known=self._known,
                seconds=float(request.get("seconds", SECONDS)),
            )
        for sentence in found.left_out.values():
            logger.warning("Not proposed: %s", sentence)
        scan = found.scans[0]
        slices = {what: sorted(numbers) for what, numbers in scan.file_slices.items()}
        return {
            "id": scan.name,
            "slices": {"axis": scan.file_axis, "first": 0, "of": slices},
            "similarity": round(scan.similarity, 3),
            "left_out": found.left_out,
            "waiting": found.waiting,
        }


def _proposed(datastore: Datastore, id: str) -> float:
    """When MONAI Label noted that this strategy proposed the scan; 0: never."""
    noted = datastore.get_image_info(id).get("strategy", {}).get(NAME, {})
    return float(noted.get("ts", 0))


def _make_temporary_files_private() -> None:
    """MONAI Label writes uploads there under names that others could guess or read."""
    tempfile.tempdir = tempfile.mkdtemp(prefix="few_shot_")  # mode 0700
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)


def _guard_the_door(origins: list[str]) -> None:
    """Put the guard in front of MONAI Label's web application, once, where this is a server.

    The application starts before it makes this app, so its stack of middleware exists already.
    """
    application = getattr(sys.modules.get("monailabel.app"), "app", None)
    if application is not None and not isinstance(application.middleware_stack, RequestGuard):
        stack = application.middleware_stack or application.build_middleware_stack()
        application.middleware_stack = RequestGuard(stack, origins)


def find_bundles(app_dir: Path, models: str) -> dict[str, Path]:
    """Folders of the bundles that `--conf models` names; nothing is downloaded.

    Several names or folders are separated by commas. Bundles may lie in the app's `model`, or in
    `bundles` of the repository. That one is not there, none is named, or two bear one name is a
    `DataError`.
    """
    app_dir = app_dir.resolve()
    places = [app_dir / "model", app_dir.parent.parent / "bundles"]
    found: dict[str, Path] = {}
    for model in filter(None, (part.strip() for part in models.split(","))):
        candidates = [*(place / model for place in places), Path(model).expanduser()]
        path = next((path for path in candidates if (path / _CONFIG).is_file()), None)
        if path is None:
            looked = " and ".join(map(str, places))
            raise DataError(
                f"--conf models: there is no bundle {model}, neither as a folder nor in {looked}; "
                "name a bundle's folder."
            )
        path = path.resolve()
        if path.name in found:
            raise DataError(
                f"--conf models: two bundles are called {path.name}; name one, or rename a folder."
            )
        found[path.name] = path
    if not found:
        raise DataError("--conf models: expected at least one bundle, got none; name one.")
    return found
