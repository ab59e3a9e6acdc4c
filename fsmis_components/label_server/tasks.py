"""Inference by the labelled volumes of the server's folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.tasks.infer.bundle import BundleInferTask
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError
from fsmis_components.label_server.rules import address_names
from fsmis_components.label_server.studies import labelled_volumes
from fsmis_components.support.recent import RecentResults
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_request import (
    LabelledVolume,
    SupportRequest,
    common_structures,
)

NUM_SHOTS = 5  # labelled volumes per structure

LabelValues = RecentResults[tuple[int, ...]]  # above 0; an unchanged label is read once
Result = tuple[str | None, dict[str, Any]]  # of MONAI Label's inference: a file and what is said


class FewShotTask(BundleInferTask):
    """A bundle that segments what is labelled in the folder `studies`.

    Masks hold 1..N in the order of the structures, which 3D Slicer takes for granted, and the
    answer's `label_names` say which is which. The values of the labels are shared by all bundles.
    """

    def __init__(
        self, path: str, conf: dict[str, str], studies: str, label_values: LabelValues
    ) -> None:
        super().__init__(path, conf)
        self.studies = studies
        self.dimension = 3  # the metadata describes the network, which sees slices
        self._config["num_shots"] = NUM_SHOTS
        self._label_values = label_values

    def info(self) -> dict[str, Any]:
        """What clients show; labels are the present support's structures with their values."""
        # before anything is labelled, the structures of the default pack
        names = self._labelled_structures() or sorted(self.labels, key=self.labels.__getitem__)
        labels = {name: value for value, name in enumerate(names, start=1)}
        return {**super().info(), "labels": labels}

    def slugs(self) -> dict[str, str]:
        """The labelled structures by names that are safe in addresses."""
        return address_names(self._labelled_structures())

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Result:
        """Segment a scan, by MONAI Label's request with the parameters of `ResolveSupportd`.

        A scan or a support that cannot be used is a `RequestError`.
        """
        file, result = super().__call__({"number_structures": True, **request}, callbacks)
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
        image = str(Path(str(request.get("image"))).resolve())
        for volume in labelled_volumes(self.studies):
            if volume.image == image:
                return {"support": [volume.id]}
        raise RequestError(
            f"{request.get('image')}: has no submitted label; outline each structure in three "
            "slices, submit the label and run this again."
        )

    def usable(self) -> dict[LabelledVolume, tuple[int, ...]]:
        """The volumes that can serve as support, in their order, with their values."""
        found = {}
        for volume in labelled_volumes(self.studies):
            with suppress(DataError):  # whoever asks for a mask is told why
                found[volume] = self._label_values.get(volume.key, volume.values)
        return found

    def _labelled_structures(self) -> list[str]:
        """Names in the order in which `number_structures` numbers them."""
        names, _ = common_structures(self.usable())
        return [names[value] for value in sorted(names)]


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
