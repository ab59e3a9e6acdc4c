"""Fit from Python: labelled scans and files in, the `FolderFit` of a bundle's own config out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsmis_components.bundle import parsed_config
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import errors_of_commands, writing
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.data.volumes import save_mask
from fsmis_components.fitting.folder_fit import FolderFit
from fsmis_components.support.support_request import relabel
from fsmis_components.support.support_set import SupportSet

FITTED = "fitted"  # the folder that `FolderFit` fills
# knobs of `fit.json` that are the bundle's, with the values of its `inference.json`
GEOMETRY_KNOBS = ("spatial_size", "modality", "slice_axis", "ignore_spacing")


def fit_of_bundle(
    bundle_root: str | Path,
    folder: Path,
    labelled: SupportSet,
    scans: Sequence[Path],
    knobs: Mapping[str, Any],
) -> FolderFit:
    """What `configs/fit.json` of a bundle describes, for scans that may lie anywhere.

    Args:
        bundle_root: the bundle's folder, or the name of a shipped one.
        folder: receives `labelled/`, the labels with the values of the structures, `scans/`, the
            list of scans, and, when the fit is run, `fitted/`; an error in it is a `DataError`.
        labelled: scans that were read from files.
        scans: files without labels.
        knobs: of `fit.json`; that there is no such one, or no such weights, is a `DataError`.
    """
    root = bundle_folder(bundle_root)
    kept = {structure.value: structure.value for structure in labelled.structures}
    pairs = []
    for number, scan in enumerate(labelled.scans, 1):
        name = f"label_{number}.nii.gz"
        with writing(folder):
            (folder / "labelled").mkdir(parents=True, exist_ok=True)
        label = np.asarray(relabel(scan, kept).label.data)
        save_mask(folder / "labelled" / name, label, like=scan.image)
        pairs.append({"image": str(scan.image.source), "label": name})
    names = {str(structure.value): structure.name for structure in labelled.structures}
    _write_datalist(folder / "labelled", {"labels": names, "training": pairs})
    images = [{"image": str(path.absolute())} for path in scans]
    _write_datalist(folder / "scans", {"training": images})
    places = {
        "support_dir": folder / "labelled",
        "dataset_dir": folder / "scans",
        "output_dir": folder / FITTED,
    }
    given = {**knobs, **{knob: str(path) for knob, path in places.items()}}
    parser = parsed_config(root, "fit", given)
    with errors_of_commands():
        parser.get_parsed_content("initialize")
        fit: FolderFit = parser.get_parsed_content("fit")
    return fit


def _write_datalist(folder: Path, content: Mapping[str, Any]) -> None:
    with writing(folder):
        atomic_write_text(folder / "dataset.json", json.dumps(content, indent=2) + "\n")
