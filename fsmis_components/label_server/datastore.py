"""A folder of scans that stores no label which cannot serve."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import checked_shape, open_volume
from fsmis_components.data.request_error import RequestError, client_errors
from fsmis_components.label_server.rules import ENDINGS
from fsmis_components.label_server.studies import names_of
from fsmis_components.support.support_request import LabelledVolume
from fsmis_components.transforms.load_volume import MOST_IN_MEMORY


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of scans, behind the guard, which lets plain names in only.

    Masks that the server itself stores (tag `original`) are not checked: in a scan without the
    structure an empty one is right.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store a scan; a taken id, or a file that is no scan, is a `RequestError`."""
        with remove_refused(image_filename):
            _check_ending("file", image_filename)
            if image_id in self._datastore.objects:
                raise DataError(f"image: {image_id} is there already; choose another name.")
            # what a request may not have is not stored either, for Next Sample reads it
            path = Path(image_filename)
            checked_shape(open_volume(path, MOST_IN_MEMORY), path, MOST_IN_MEMORY)
            return str(super().add_image(image_id, image_filename, image_info))

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Store a label.

        One on another grid, empty, or with a value without a name is a `RequestError`; the label
        that was there before stays.
        """
        with remove_refused(label_filename):
            self._check_known(image_id)
            _check_ending("label", label_filename)
            if label_tag != DefaultLabelTag.ORIGINAL:
                names, image = names_of(label_info or {}), self.get_image_uri(image_id)
                try:
                    LabelledVolume.of(image_id, image, label_filename, names).values()
                except DataError as error:
                    # the upload lies under a name that tells the annotator nothing
                    sentence = str(error).replace(label_filename, "the submitted label")
                    raise RequestError(f"{image_id} was not stored: {sentence}") from error
            return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def remove_image(self, image_id: str) -> None:
        """Remove a scan and its labels."""
        self._check_known(image_id)
        super().remove_image(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        self._check_known(label_id)
        super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Keep something with a scan."""
        self._check_known(image_id)
        super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Keep something with a label."""
        self._check_known(label_id)
        if self._datastore.label(label_id, label_tag) is None:
            raise RequestError(f"label: {label_id} has none of this tag.")
        super().update_label_info(label_id, label_tag, info)

    def _check_known(self, image_id: str) -> None:
        if image_id not in self._datastore.objects:
            raise RequestError(f"image: there is no scan {image_id} on this server.")


@contextmanager
def remove_refused(*paths: object) -> Iterator[None]:
    """As `client_errors`; where the body raises, remove uploads.

    MONAI Label removes those of answered requests only.
    """
    try:
        with client_errors():
            yield
    except Exception:
        for path in paths:
            if isinstance(path, str) and Path(path).is_relative_to(tempfile.gettempdir()):
                Path(path).unlink(missing_ok=True)
        raise


def _check_ending(what: str, path: str) -> None:
    if not path.lower().endswith(ENDINGS):
        raise DataError(f"{what}: expected a file that ends in {', '.join(ENDINGS)}.")
