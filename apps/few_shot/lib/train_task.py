"""Self-supervised training on all scans of the datastore, labelled or not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError
from fsmis_components.selection import load_stack

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
        items = []
        for id in sorted(datastore.list_images()):
            path = Path(datastore.get_image_uri(id))
            try:
                load_stack(path)
            except DataError as error:
                logger.warning("Not trained on: %s", error)
            else:
                items.append({"image": str(path)})
        if not items:
            raise RequestError("training: the datastore holds no scan that can be read; add some.")
        return items
