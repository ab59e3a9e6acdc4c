"""Inference by the labelled volumes of the datastore, for all structures or for one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.tasks.infer.bundle import BundleInferTask
from torch import nn

from fsmis_components.support.labelled_volume import LabelledVolume
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_request import SupportRequest
from lib.datastore_volumes import datastore_volumes
from lib.structures import LabelValues, slugs, structure_names

NUM_SHOTS = 5  # labelled volumes per structure
_DATASTORE = "datastore"

Answered = tuple[str | None, dict[str, Any]]


class FewShotTask(BundleInferTask):
    """A bundle that segments what is labelled in the datastore.

    Masks hold 1..N in the order of the structures, which 3D Slicer takes for granted, and the
    answer's `label_names` say which is which. A client's own `support` wins over the datastore's
    volumes; with nothing labelled the bundle's default pack answers.

    Args:
        path: the bundle's folder.
        conf: of the app.
        datastore: holds volumes and labels.
    """

    def __init__(self, path: str, conf: dict[str, str], datastore: Datastore) -> None:
        super().__init__(path, conf)
        self.datastore = datastore
        self.dimension = 3  # the metadata describes the network, which sees slices
        self._config["num_shots"] = NUM_SHOTS
        self._label_values = LabelValues()

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
        return slugs(self._labelled_structures())

    def __call__(
        self, request: dict[str, Any], callbacks: Any = None, structure: str | None = None
    ) -> Answered:
        """Segment a scan.

        Args:
            request: MONAI Label's, with the parameters of `ResolveSupportd`.
            callbacks: as in the base class.
            structure: one structure only; None: those of the request, or all.

        Raises:
            RequestError: the scan or the support cannot be used; the sentence says why.
        """
        asked: dict[str, Any] = {"number_structures": True, **request}
        if structure is not None:
            asked["structures"] = [structure]
        own = not asked.get("support") and not asked.get("support_tag")
        others = self._volumes_without(asked.get("image")) if own else []
        if others:
            asked["support"] = [volume.to_dict() for volume in others]
        file, result = super().__call__(asked, callbacks)
        if others:
            result["support"]["source"] = _DATASTORE
        # the base class names what was true when the server started
        result["label_names"] = dict(result["structures"])
        return file, result

    def support_pack(self, network: nn.Module) -> SupportPack | None:
        """What the labelled volumes say, as inference uses it; None: none of them can serve."""
        volumes = tuple(self._label_values.usable(datastore_volumes(self.datastore)))
        if not volumes:
            return None
        request = SupportRequest(_DATASTORE, volumes, None, NUM_SHOTS, number_structures=True)
        return self.inferer().support.answer(network, request).pack

    def present_network(self, device: str) -> nn.Module:
        """The network with the present weights."""
        return self._get_network(device, None)

    def knob(self, name: str) -> Any:
        """A value at the top of the bundle's inference.json."""
        return self.bundle_config.get_parsed_content(name)

    def _volumes_without(self, query: Any) -> list[LabelledVolume]:
        """The labelled volumes; none supports itself."""
        path = Path(query).resolve() if isinstance(query, str) else None
        volumes = datastore_volumes(self.datastore)
        return [volume for volume in volumes if Path(volume.image).resolve() != path]

    def _labelled_structures(self) -> list[str]:
        volumes = datastore_volumes(self.datastore)
        usable = self._label_values.usable(volumes)
        return structure_names({volume: usable[volume] for volume in volumes if volume in usable})


class StructureTask(InferTask):
    """One structure of a `FewShotTask`: its mask holds 1, other segments of a client stay.

    Args:
        task: does the work; the network is shared.
        structure: the name.
    """

    def __init__(self, task: FewShotTask, structure: str) -> None:
        super().__init__(
            task.type,
            {structure: 1},
            task.dimension,
            f"{structure}, as in the volumes labelled last. {task.description}",
        )
        self.task = task
        self.structure = structure

    def config(self) -> dict[str, Any]:
        """Options that clients show."""
        return self.task.config()

    def is_valid(self) -> bool:
        """Whether the bundle can be used."""
        return self.task.is_valid()

    def get_path(self, validate: bool = True) -> str | None:
        """File of the weights."""
        return self.task.get_path(validate)

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Answered:
        """Segment the structure; see `FewShotTask`."""
        return self.task(request, callbacks, self.structure)
