"""Inference by the labelled volumes of the datastore, and training on all of its scans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError
from fsmis_components.label_server.rules import address_names
from fsmis_components.label_server.studies import datastore_volumes
from fsmis_components.selection import load_stack
from fsmis_components.support.recent import RecentResults
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_request import (
    LabelledVolume,
    SupportRequest,
    common_structures,
)

NUM_SHOTS = 5  # labelled volumes per structure

logger = logging.getLogger(__name__)

LabelValues = RecentResults[tuple[int, ...]]  # above 0; an unchanged label is read once
Result = tuple[str | None, dict[str, Any]]  # of MONAI Label's inference: a file and what is said


class FewShotTask(BundleInferTask):
    """A bundle that segments what is labelled in the datastore.

    Masks hold 1..N in the order of the structures, which 3D Slicer takes for granted, and the
    answer's `label_names` say which is which. A client's own `support` wins over the datastore's
    volumes; with nothing labelled the bundle's default pack answers. The values of the datastore's
    labels are shared by all bundles.
    """

    def __init__(
        self, path: str, conf: dict[str, str], datastore: Datastore, label_values: LabelValues
    ) -> None:
        super().__init__(path, conf)
        self.datastore = datastore
        self.dimension = 3  # the metadata describes the network, which sees slices
        self._config["num_shots"] = NUM_SHOTS
        self._label_values = label_values

    def info(self) -> dict[str, Any]:
        """What clients show; labels are the present support's structures with their values."""
        names = self.structures()
        labels = {name: value for value, name in enumerate(names, start=1)}
        return {**super().info(), "labels": labels}

    def structures(self) -> list[str]:
        """Names of what is labelled, or of the default pack's structures before anything is."""
        labelled = self._labelled_structures()
        return labelled or sorted(self.labels, key=self.labels.__getitem__)

    def slugs(self) -> dict[str, str]:
        """The labelled structures by names that are safe in addresses."""
        return address_names(self._labelled_structures())

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Result:
        """Segment a scan, by MONAI Label's request with the parameters of `ResolveSupportd`.

        A scan or a support that cannot be used is a `RequestError`.
        """
        asked: dict[str, Any] = {"number_structures": True, **request}
        named = asked.get("support") or asked.get("support_tag")
        others = [] if named else [v for v in self._volumes() if not _shows(v, asked)]
        if others:
            asked["support"] = [volume.to_dict() for volume in others]
        file, result = super().__call__(asked, callbacks)
        if others:
            result["support"]["source"] = "datastore"
        # the base class names what was true when the server started
        result["label_names"] = dict(result["structures"])
        return file, result

    def support_pack(self, network: nn.Module) -> SupportPack | None:
        """What the labelled volumes say, as inference uses it; None: none of them can serve."""
        volumes = tuple(self.usable())
        if not volumes:
            return None
        request = SupportRequest("datastore", volumes, None, NUM_SHOTS, number_structures=True)
        return self.inferer().support.resolve_request(network, request).pack

    def present_network(self, device: str) -> nn.Module:
        """The network with the present weights."""
        return self._get_network(device, None)

    def knob(self, name: str) -> Any:
        """A value at the top of the bundle's inference.json."""
        return self.bundle_config.get_parsed_content(name)

    def own_label(self, request: dict[str, Any]) -> dict[str, Any]:
        """The submitted label of the scan that a request is about, as its support."""
        labelled = next((volume for volume in self._volumes() if _shows(volume, request)), None)
        if labelled is None:
            raise RequestError(
                f"{request.get('image')}: has no submitted label; outline each structure in three "
                "slices, submit the label and run this again."
            )
        return {"support": [labelled.to_dict()]}

    def _volumes(self) -> list[LabelledVolume]:
        return datastore_volumes(self.datastore)

    def usable(self) -> dict[LabelledVolume, tuple[int, ...]]:
        """The volumes that can serve as support, in their order, with their values."""
        found = {}
        for volume in self._volumes():
            with suppress(DataError):  # whoever asks for a mask is told why
                found[volume] = self._label_values.get(volume.key, volume.values)
        return found

    def _labelled_structures(self) -> list[str]:
        """Names in the order in which `number_structures` numbers them."""
        names, _ = common_structures(self.usable())
        return [names[value] for value in sorted(names)]


def _shows(volume: LabelledVolume, request: dict[str, Any]) -> bool:
    """Whether the volume is the scan that a request is about."""
    image = request.get("image")
    return isinstance(image, str) and Path(volume.image).resolve() == Path(image).resolve()


class PartTask(InferTask):
    """A model that puts something of its own into a request to a `FewShotTask`."""

    def __init__(
        self,
        task: FewShotTask,
        labels: dict[str, int],
        description: str,
        added: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        super().__init__(task.type, labels, task.dimension, f"{description} {task.description}")
        self.task = task
        self.added = added

    def config(self) -> dict[str, Any]:
        """Options that clients show."""
        return self.task.config()

    def is_valid(self) -> bool:
        """Whether the bundle can be used."""
        return self.task.is_valid()

    def get_path(self, validate: bool = True) -> str | None:
        """File of the weights."""
        return self.task.get_path(validate)

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Result:
        """Segment; see `FewShotTask`."""
        return self.task({**request, **self.added(request)}, callbacks)


def structure_task(task: FewShotTask, structure: str) -> PartTask:
    """One structure: its mask holds 1, other segments of a client stay."""
    description = f"{structure}, as in the volumes labelled last."
    return PartTask(task, {structure: 1}, description, lambda _: {"structures": [structure]})


def this_scan_task(task: FewShotTask) -> PartTask:
    """A scan by its own label: slices between those that are outlined are filled."""
    labels = task.info()["labels"]
    return PartTask(task, labels, "A scan by its own outlined slices.", task.own_label)


class AllScansTask(BundleTrainTask):
    """MONAI Label's training of a bundle, which would take labelled scans only.

    No label is read, so the network adapts to a site's scans with one labelled volume or none.
    """

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; see the base class."""
        # clients send the option panel's empty text, which MONAI takes for the whole config
        asked = {**request, "run_id": request.get("run_id") or "run"}
        return dict(super().__call__(asked, datastore))

    def _fetch_datalist(
        self, request: dict[str, Any], datastore: Datastore
    ) -> list[dict[str, str]]:
        return [{"image": str(path)} for path in readable_scans(datastore)]


def readable_scans(datastore: Datastore, without: Collection[str] = ()) -> list[Path]:
    """The scans of a datastore that can be learned from; others are told in the log.

    `without` names ids that are left out. It is a `RequestError` where no scan is left.
    """
    found = []
    for id in sorted(set(datastore.list_images()) - set(without)):
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
