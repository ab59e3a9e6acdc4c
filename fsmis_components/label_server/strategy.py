"""The strategy behind Next Sample: the scan that stands best for those that are not labelled."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.others.generic import name_to_device

from fsmis_components.data.cases import Case
from fsmis_components.encoding import FeatureCache, ScanEncoder
from fsmis_components.label_server.tasks import FewShotTask
from fsmis_components.selection import Compared, Describer, Preprocessing, propose

NAME = "few_shot"
SECONDS = 60.0  # for scans that were not encoded yet; the server answers nobody meanwhile
_GEOMETRY = ("spatial_size", "modality", "slice_axis", "ignore_spacing")

logger = logging.getLogger(__name__)


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
