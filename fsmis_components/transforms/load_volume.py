"""A transform that reads a scan as the rest of the package does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform
from monai.utils import ImageMetaKey

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import client_errors, is_own_file
from fsmis_components.data.volume_names import is_volume_name
from fsmis_components.data.volumes import ORIENTED_KEY, load_image

NO_SCAN = "image: no scan of this server; name one by its id."
MOST_IN_MEMORY = 2**29  # voxels; MONAI holds a request's scan as float32, here 2 GiB, and copies it


class LoadVolumed(MapTransform):
    """Read a scan from its path: a volume file or a DICOM folder, other files by MONAI's readers.

    The result is a float32 MetaTensor (1, X, Y, Z) in the stored axis order, with the meta entries
    from which MONAI Label writes a mask on the scan's own grid.

    Args:
        keys: entries that hold a path.
        allow_missing_keys: skip entries that are not there.
        studies_dir: of a label server: other files than its own are refused; None: any file.

    Raises:
        RequestError: the file cannot be used; one sentence says why.
    """

    def __init__(
        self,
        keys: KeysCollection,
        allow_missing_keys: bool = False,
        studies_dir: str | Path | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.studies_dir = studies_dir

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with scans in place of paths."""
        d = dict(data)
        for key in self.key_iterator(d):
            with client_errors():
                if self.studies_dir and not is_own_file(d[key], self.studies_dir):
                    raise DataError(NO_SCAN)
                d[key] = _loaded(d[key])
        return d


def _loaded(source: Any) -> MetaTensor:
    if not isinstance(source, str | Path):
        raise DataError(f"image: expected the path of a scan, got {type(source).__name__}.")
    path = Path(source)
    if path.is_dir() or is_volume_name(path.name) or not path.exists():
        volume = load_image(path, MOST_IN_MEMORY)
        data, affine = np.asarray(volume.data, dtype=np.float32), volume.affine
        oriented = volume.oriented
    else:
        data, affine = _by_monai(path)
        oriented = True
    meta = {
        ImageMetaKey.FILENAME_OR_OBJ: str(path),
        "affine": torch.from_numpy(affine),
        "original_affine": affine,
        "spatial_shape": np.asarray(data.shape),
        "original_channel_dim": float("nan"),
        ORIENTED_KEY: oriented,
    }
    return MetaTensor(torch.from_numpy(data)[None], meta=meta)


def _by_monai(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = LoadImage(image_only=True)(path)
    except Exception as error:  # a file of another kind fails in its reader in any way
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{path}: no reader for this file ({reason}); convert it to .nii.gz."
        ) from error
    data = np.asarray(image, dtype=np.float32)
    if data.ndim != 3:
        raise DataError(f"{path}: expected one 3D volume, got shape {data.shape}.")
    return data, np.asarray(image.affine, dtype=np.float64)
