"""A folder of scans that stores no label which cannot serve as support."""

from __future__ import annotations

from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import RequestError
from fsmis_components.support.labelled_volume import LabelledVolume, names_of


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of scans; submitted labels are checked before they are stored.

    Masks that the server itself stores (tag `original`) are not: in a scan without the structure
    an empty one is right.
    """

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Store a label.

        Raises:
            RequestError: it is on another grid, empty, or holds a value without a name; the label
                that was there before stays.
        """
        image = self.get_image_uri(image_id)
        if image and label_tag == DefaultLabelTag.FINAL:
            names = names_of(label_info or {})
            try:
                LabelledVolume.of(image_id, image, label_filename, names).check()
            except DataError as error:
                # the upload lies under a name that tells the annotator nothing
                sentence = str(error).replace(label_filename, "the submitted label")
                raise RequestError(f"{image_id} was not stored: {sentence}") from error
        return super().save_label(image_id, label_filename, label_tag, label_info)
