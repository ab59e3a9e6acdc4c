"""Makes the pseudo-labels of a volume once: a settings object with a cache on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.errors import writing
from fsmis_components.transforms.body_mask import MR_FRACTION, body_mask
from fsmis_components.transforms.superpixels import superpixel_labels
from fsmis_components.transforms.supervoxels import supervoxel_labels

ALGORITHM_VERSION = 1  # raise when the same settings give other labels: old cache files are unused


@dataclass(frozen=True)
class PseudoLabels:
    """Callable that turns a volume (D, H, W) into pseudo-labels, int32 (D, H, W), 0 = outside.

    Args:
        kind: `supervoxel` (3D, graph; see `supervoxel_labels`), `slic` (3D, compact) or
            `superpixel` (2D, ids start again in each slice).
        min_size: voxels, pixels for `superpixel`; None: 5000 or 400.
        sigma: in-plane smoothing in pixels; None: 0.8 or, for `superpixel`, 1.
        z_weight: weight of differences between slices, `supervoxel` only.
        compactness: `slic` only.
        body_fraction: threshold of the patient's mask, see `body_threshold`.
        cache_dir: folder for results, made when missing; None: nothing is kept.
    """

    kind: Literal["superpixel", "supervoxel", "slic"] = "supervoxel"
    min_size: int | None = None
    sigma: float | None = None
    z_weight: float = 1.0
    compactness: float = 0.05
    body_fraction: float = MR_FRACTION
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("superpixel", "supervoxel", "slic"):
            message = (
                "PseudoLabels: expected kind 'superpixel', 'supervoxel' or 'slic', "
                f"got {self.kind!r}"
            )
            raise ValueError(message)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the labels of a volume, ready for JSON."""
        settings = asdict(self)
        del settings["cache_dir"]
        settings["min_size"], settings["sigma"] = self._size_and_sigma()
        return settings

    def __call__(self, volume: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> np.ndarray:
        """Labels of the volume, from the cache where it has them.

        Args:
            volume: (D, H, W), normalised slices at working resolution.
            spacing: (through-plane, in-plane) in mm; matters for `slic` only.
        """
        volume = np.ascontiguousarray(volume, dtype=np.float32)
        if self.cache_dir is None:
            return self._compute(volume, spacing)
        path = Path(self.cache_dir) / f"pseudo_labels_{self.cache_key(volume, spacing)}.npz"
        labels = _read(path, volume.shape)
        if labels is None:
            labels = self._compute(volume, spacing)
            with writing(path):
                atomic_write(path, partial(np.savez_compressed, labels=labels))
        return labels

    def cache_key(self, volume: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> str:
        """SHA-256 of the volume's content, the settings and the algorithm's version."""
        recipe = {
            "version": ALGORITHM_VERSION,
            "settings": self.settings,
            "spacing": [float(length) for length in spacing] if self.kind == "slic" else None,
            "shape": list(volume.shape),
        }
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(volume, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def _size_and_sigma(self) -> tuple[int, float]:
        min_size, sigma = (400, 1.0) if self.kind == "superpixel" else (5000, 0.8)
        return (
            min_size if self.min_size is None else self.min_size,
            sigma if self.sigma is None else self.sigma,
        )

    def _compute(self, volume: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        mask = body_mask(volume, fraction=self.body_fraction)
        min_size, sigma = self._size_and_sigma()
        if self.kind == "superpixel":
            return superpixel_labels(volume, mask, min_size=min_size, sigma=sigma)
        return supervoxel_labels(
            volume,
            mask,
            min_size=min_size,
            sigma=sigma,
            kind="slic" if self.kind == "slic" else "graph",
            z_weight=self.z_weight,
            compactness=self.compactness,
            spacing=spacing,
        )


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            labels = archive["labels"]
    # a file cut short or overwritten: zip, zlib and NumPy each have their own way to say it
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if labels.shape == shape and labels.dtype == np.int32:
            return labels
        problem = f"{labels.dtype} {labels.shape} in place of int32 {shape}"
    warnings.warn(
        f"PseudoLabels: {path} is unusable ({problem}) and is computed again", stacklevel=3
    )
    return None
