"""A folder of scans whose doors take plain names only, and no label which cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import checked_shape
from fsmis_components.data.request_error import RequestError, answered
from fsmis_components.data.volume_files import open_volume
from fsmis_components.support.labelled_volume import LabelledVolume, names_of
from fsmis_components.transforms.load_volume import MOST_IN_MEMORY
from lib.names import check_name, check_tag
from lib.uploads import removed_when_refused

_VOLUMES = (".nii", ".nii.gz", ".nrrd")


class CheckedDatastore(LocalDatastore):
    """MONAI Label's folder of scans; ids, tags and endings are names, and labels are checked.

    Masks that the server itself stores (tag `original`) are not: in a scan without the structure
    an empty one is right.
    """

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Store a scan.

        Raises:
            RequestError: its id is no name, is taken, or the file is no scan.
        """
        with removed_when_refused(image_filename), answered():
            if image_id:
                check_name("image", image_id)
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

        Raises:
            RequestError: it is on another grid, empty, or holds a value without a name; the label
                that was there before stays.
        """
        with removed_when_refused(label_filename), answered():
            self._check_known(image_id)
            check_tag(label_tag)
            _check_ending("label", label_filename)
            if label_tag != DefaultLabelTag.ORIGINAL:
                names = names_of(label_info or {})
                image = self.get_image_uri(image_id)
                try:
                    LabelledVolume.of(image_id, image, label_filename, names).check()
                except DataError as error:
                    # the upload lies under a name that tells the annotator nothing
                    sentence = str(error).replace(label_filename, "the submitted label")
                    raise RequestError(f"{image_id} was not stored: {sentence}") from error
            return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def remove_image(self, image_id: str) -> None:
        """Remove a scan and its labels."""
        with answered():
            self._check_known(image_id)
            super().remove_image(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        with answered():
            self._check_known(label_id)
            check_tag(label_tag)
            super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Keep something with a scan."""
        with answered():
            self._check_known(image_id)
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Keep something with a label."""
        with answered():
            self._check_known(label_id)
            check_tag(label_tag)
            if self._datastore.label(label_id, label_tag) is None:
                raise DataError(f"label: {label_id} has none of this tag.")
            super().update_label_info(label_id, label_tag, info)

    def _check_known(self, image_id: str) -> None:
        check_name("image", image_id)
        if image_id not in self._datastore.objects:
            raise DataError(f"image: there is no scan {image_id} on this server.")


def _check_ending(what: str, path: str) -> None:
    if not path.lower().endswith(_VOLUMES):
        raise DataError(f"{what}: expected a file that ends in {', '.join(_VOLUMES)}.")
