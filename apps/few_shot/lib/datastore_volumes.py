"""The labelled volumes of a MONAI Label datastore, whatever its backend."""

from __future__ import annotations

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from fsmis_components.data.errors import DataError
from fsmis_components.support.labelled_volume import LabelledVolume, names_of

_FINAL = DefaultLabelTag.FINAL.value  # labels that a person submitted


def datastore_volumes(datastore: Datastore) -> list[LabelledVolume]:
    """The volumes with a submitted label, the one that was labelled first at the front."""
    found = []
    for image_id in datastore.get_labeled_images():
        label_id = datastore.get_label_by_image_id(image_id, _FINAL)
        image, label = datastore.get_image_uri(image_id), datastore.get_label_uri(label_id, _FINAL)
        if not image or not label:
            continue
        info = datastore.get_label_info(label_id, _FINAL)
        try:
            volume = LabelledVolume.of(image_id, image, label, names_of(info))
        except DataError:
            continue  # removed from the disk; the datastore notices it a moment later
        found.append((info.get("ts") or 0, image_id, volume))
    return [volume for _, _, volume in sorted(found, key=lambda entry: entry[:2])]
