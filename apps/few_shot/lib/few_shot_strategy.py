"""The strategy behind Next Sample: the scan that stands best for those that are not labelled."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.others.generic import name_to_device

from lib.infer_tasks import FewShotTask
from lib.proposal import Proposer

NAME = "few_shot"
SECONDS = 60.0  # for looking at scans that are not known yet; the server answers nobody meanwhile
_GEOMETRY = ("spatial_size", "modality", "slice_axis", "ignore_spacing")
_ENCODING = ("batch_size", "amp")

logger = logging.getLogger(__name__)


class FewShotStrategy(Strategy):
    """Propose a scan and the slices of it to label.

    Args:
        task: its network looks at scans, its support says where structures are expected.
        folder: what is known of scans is kept here.
    """

    def __init__(self, task: FewShotTask, folder: Path) -> None:
        super().__init__("The scan that stands best for those that are not labelled")
        self.task = task
        geometry = {name: task.knob(name) for name in _GEOMETRY}
        encoding = {name: task.knob(name) for name in _ENCODING}
        self.proposer = Proposer(folder, geometry, encoding)
        self._lock = Lock()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return the id and what to label; None where nothing is left.

        Raises:
            DataError: no scan that is left can be used.
        """
        network = self.task.present_network(name_to_device(request.get("device", "cuda")))
        paths = {id: datastore.get_image_uri(id) for id in datastore.list_images()}
        with self._lock:
            found = self.proposer.propose(
                network,
                paths,
                set(datastore.get_labeled_images()),
                {id: _proposed(datastore, id) for id in paths},
                lambda: self.task.support_pack(network),
                float(request.get("seconds", SECONDS)),
            )
        if found is None:
            return None
        for sentence in found.left_out.values():
            logger.warning("Not proposed: %s", sentence)
        return {
            "id": found.id,
            "slices": {"axis": found.axis, "first": 0, "of": found.slices},
            "similarity": round(found.similarity, 3),
            "left_out": found.left_out,
            "waiting": found.waiting,
        }


def _proposed(datastore: Datastore, id: str) -> float:
    """When MONAI Label noted that this strategy proposed the scan; 0: never."""
    noted = datastore.get_image_info(id).get("strategy", {}).get(NAME, {})
    return float(noted.get("ts", 0))
