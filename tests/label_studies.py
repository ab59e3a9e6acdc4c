"""A studies folder as a MONAI Label server keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from block_scans import block_image, block_label, write_nifti

NAMES = {1: "Liver", 2: "Spleen"}


def write_volume(folder: Path, id: str, seed: int) -> Path:
    return write_nifti(folder / f"{id}.nii.gz", block_image(seed=seed))


def submit(
    folder: Path,
    id: str,
    label: np.ndarray | None = None,
    names: Mapping[int, str] | None = NAMES,
    ts: int = 0,
    **more: Any,
) -> Path:
    """Store a label and its record as the server does; without names: only the file."""
    path = folder / "labels" / "final" / f"{id}.nii.gz"
    write_nifti(path, block_label() if label is None else label, **more)
    record = folder / "datastore_v2.json"
    content = json.loads(record.read_text()) if record.exists() else {"objects": {}}
    if names is not None:
        label_info = [{"name": name, "idx": value} for value, name in names.items()]
        content["objects"][id] = {
            "labels": {"final": {"ext": ".nii.gz", "info": {"label_info": label_info, "ts": ts}}}
        }
    record.write_text(json.dumps(content))
    return path
