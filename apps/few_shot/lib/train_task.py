"""Self-supervised training on all scans of the datastore, labelled or not."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from fsmis_components.data.request_error import RequestError
from lib.scans import ScanChecks

logger = logging.getLogger(__name__)


class AllScansTask(BundleTrainTask):
    """MONAI Label's training of a bundle, which would take labelled scans only.

    No label is read, so the network adapts to a site's scans with one labelled volume or none.
    """

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; see the base class."""
        # clients send the option panel's empty text, which MONAI takes for the whole config
        return super().__call__({**request, "run_id": request.get("run_id") or "run"}, datastore)

    def _fetch_datalist(
        self, request: dict[str, Any], datastore: Datastore
    ) -> list[dict[str, str]]:
        paths = {id: datastore.get_image_uri(id) for id in datastore.list_images()}
        cases, refused = ScanChecks().usable(paths)
        for sentence in refused.values():
            logger.warning("Not trained on: %s", sentence)
        if not cases:
            raise RequestError("training: the datastore holds no scan that can be read; add some.")
        return [{"image": str(case.image)} for case in cases]
