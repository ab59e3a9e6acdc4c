"""Makes the pseudo-labels of a volume once: a settings object with a cache on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import writing
from fsmis_components.data.field_of_view import MR_FRACTION, body_mask
from fsmis_components.transforms.regions import superpixel_labels, supervoxel_labels

ALGORITHM_VERSION = 1  # raise when the same settings give other labels: old cache files are unused
# how regions are made, their least size, and the smoothing before, where the settings say nothing
KINDS = {"supervoxel": (supervoxel_labels, 5000, 0.8), "superpixel": (superpixel_labels, 400, 1.0)}


@dataclass(frozen=True)
class PseudoLabels:
    """Callable that turns a volume (D, H, W) into pseudo-labels, int32 (D, H, W), 0 = outside."""

    # 3D, see `supervoxel_labels`, or 2D, whose ids start again in each slice
    kind: Literal["superpixel", "supervoxel"] = "supervoxel"
    # voxels or pixels of a region, and in-plane smoothing in pixels; None: that of `KINDS`
    min_size: int | None = None
    sigma: float | None = None
    body_fraction: float = MR_FRACTION  # threshold of the patient's mask, see `body_mask`
    cache_dir: str | Path | None = None  # made when missing; None: nothing is kept

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"PseudoLabels: expected kind in {list(KINDS)}, got {self.kind!r}")

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Labels of the volume (D, H, W), normalised slices, from the cache where it has them."""
        volume = np.ascontiguousarray(volume, dtype=np.float32)
        path = None
        if self.cache_dir is not None:
            path = Path(self.cache_dir) / f"pseudo_labels_{self.cache_key(volume)}.npz"
            if path.is_file() and (kept := _read(path)) is not None:
                return kept
        make, min_size, sigma = self._rule()
        labels = make(volume, body_mask(volume, self.body_fraction), min_size, sigma)
        if path is not None:
            with writing(path):
                atomic_write(path, partial(np.savez_compressed, labels=labels))
        return labels

    def cache_key(self, volume: np.ndarray) -> str:
        """SHA-256 of the volume's content, the settings and the algorithm's version."""
        _, min_size, sigma = self._rule()
        settings = {"kind": self.kind, "min_size": min_size, "sigma": sigma}
        settings["body_fraction"] = self.body_fraction
        shape = list(volume.shape)
        recipe = {"version": ALGORITHM_VERSION, "settings": settings, "shape": shape}
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(volume, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def _rule(self) -> tuple[Callable[..., np.ndarray], int, float]:
        make, min_size, sigma = KINDS[self.kind]
        size = min_size if self.min_size is None else self.min_size
        return make, size, sigma if self.sigma is None else self.sigma


def _read(path: Path) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            labels: np.ndarray = archive["labels"]
            return labels
    # a file cut short or overwritten: zip, zlib and NumPy each have their own way to say it
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(
            f"PseudoLabels: {path} is unusable ({error}) and is computed again", stacklevel=3
        )
        return None
