"""A transform that reads a scan as the rest of the package does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey

from fsmis_components.data.errors import DataError
from fsmis_components.data.request_error import client_errors, is_own_file
from fsmis_components.data.volumes import ORIENTED_KEY, load_image

NO_SCAN = "image: no scan of this server; name one by its id."
MOST_IN_MEMORY = 2**29  # voxels; MONAI holds a request's scan as float32, here 2 GiB, and copies it


class LoadVolumed(MapTransform):
    """Read a scan from its path: a volume file or a DICOM folder.

    The result is a float32 MetaTensor (1, X, Y, Z) in the stored axis order, with the meta entries
    from which MONAI Label writes a mask on the scan's own grid.

    Args:
        keys: entries that hold a path.
        studies_dir: of a label server: other files than its own are refused; None: any file.

    Raises:
        RequestError: the file cannot be used; one sentence says why.
    """

    def __init__(self, keys: KeysCollection, studies_dir: str | Path | None = None) -> None:
        super().__init__(keys)
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
    volume = load_image(source, MOST_IN_MEMORY)
    data = np.asarray(volume.data, dtype=np.float32)
    meta = {
        ImageMetaKey.FILENAME_OR_OBJ: str(source),
        "affine": torch.from_numpy(volume.affine),
        "original_affine": volume.affine,
        "spatial_shape": np.asarray(data.shape),
        "original_channel_dim": float("nan"),
        ORIENTED_KEY: volume.oriented,
    }
    return MetaTensor(torch.from_numpy(data)[None], meta=meta)
