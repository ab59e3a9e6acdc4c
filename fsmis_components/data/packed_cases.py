"""A small copy of a dataset: images in 8 or 16 bit, in place of the original for any command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from tqdm import tqdm

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import Case, Section, find_cases
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.intensity import Normalisation, resolve_modality
from fsmis_components.data.json_text import parse_json
from fsmis_components.data.nifti import is_nifti_name, write_nifti
from fsmis_components.data.stored_array import quantile, slabs
from fsmis_components.data.volumes import Volume, load_image, load_label, save_mask

FORMAT = 1
RECORD = "packed.json"
_TYPES = {8: np.uint8, 16: np.uint16}
# Hounsfield units: the top of the window, and the air by which a scan is known as CT
_CT_RANGE = (-200.0, Normalisation("ct").window[1])


@dataclass(frozen=True)
class Packing:
    """How the intensities of one scan are stored: `slope * stored + intercept`.

    Attributes:
        slope: intensity of one step; exact in the header's float32.
        intercept: intensity of 0, likewise.
        levels: largest stored value; intensities beyond it are clipped to it.
    """

    slope: float
    intercept: float
    levels: int

    def __call__(self, intensities: np.ndarray) -> np.ndarray:
        """Stored values of intensities of any shape, uint8 or uint16."""
        steps = np.rint((intensities.astype(np.float64) - self.intercept) / self.slope)
        return np.clip(steps, 0, self.levels).astype(np.min_scalar_type(self.levels))


def fit_packing(volume: Volume, bits: int, modality: str = "auto") -> Packing:
    """Choose how to store a scan.

    Whole numbers that fit are kept exactly. Else the range that normalisation keeps is divided
    into 2 ** bits - 1 steps: of MR up to the quantile above which it clips, of CT the window and
    down to -200 HU, so that `resolve_modality` still knows it. Within the range no intensity
    changes by more than half a step. What lies beyond is clipped before slices are resized instead
    of after it, so a CT in 8 bit has other body edges on another grid: 16 bit keeps it exactly.

    Args:
        volume: the scan.
        bits: 8 or 16.
        modality: "auto", "mr" or "ct".

    Raises:
        DataError: another number of bits or modality.
    """
    if bits not in _TYPES:
        raise DataError(f"bits: expected 8 or 16, got {bits}.")
    levels = 2**bits - 1
    lowest, highest, whole = _range(volume)
    if whole and highest - lowest <= levels and lowest == float(np.float32(lowest)):
        return Packing(1.0, 0.0 if 0 <= lowest <= highest <= levels else lowest, levels)
    if resolve_modality(volume, modality) == "ct":
        lower, upper = _CT_RANGE
    else:
        lower = float(np.float32(lowest))
        upper = quantile(volume.data, Normalisation("mr").clip_quantile)
    step = float(np.float32((upper - lower) / levels))
    return Packing(step if step > 0 else 1.0, lower, levels)


def pack_cases(
    dataset_dir: str | Path,
    output_dir: str | Path,
    bits: int = 8,
    modality: str = "auto",
    section: Section = "training",
    say: Callable[[str], object] = tqdm.write,
) -> list[str]:
    """Write `image_<id>.nii.gz` and `label_<id>.nii.gz` of each case of a dataset.

    Images keep their grid, labels are stored on it in the smallest type; nothing else of the
    original headers is kept. `packed.json` says what was packed from what, with hashes. A case
    that is packed already is not packed again, and one that fails does not stop the others.

    Args:
        dataset_dir: see `find_cases`.
        output_dir: made when missing; what another packing wrote there is not overwritten.
        bits: 8 or 16, see `fit_packing`.
        modality: "auto", "mr" or "ct".
        section: "training", or "all" cases of a dataset that tells test cases apart.
        say: is told the sizes before and after.

    Returns:
        Why cases failed, a sentence each.

    Raises:
        DataError: no dataset there, wrong arguments, or an output folder that is in use.
    """
    cases = find_cases(dataset_dir, section=section)
    output = Path(output_dir).expanduser()
    source = Path(dataset_dir).expanduser().resolve()
    settings = {
        "format": FORMAT,
        "source": source.name,
        "bits": bits,
        "modality": Normalisation(modality).modality if modality != "auto" else "auto",
        "section": section,
    }
    if bits not in _TYPES:
        raise DataError(f"bits: expected 8 or 16, got {bits}.")
    record = _open_record(output, settings, source)
    gone = sorted(set(record["cases"]) - {case.name for case in cases})
    if gone:
        raise DataError(
            f"{output}: holds case {gone[0]}, which {source} has no more; delete {output} and pack "
            "again."
        )
    failures = []
    for case in tqdm(cases, desc="packing", unit="scan"):
        try:
            _pack_case(case, output, record, bits, modality)
        except DataError as error:
            failures.append(f"{case.name}: {error}")
    say(_sizes(cases, record["cases"], output))
    if failures:
        say(
            f"{len(failures)} of {len(cases)} cases were not packed, so folds of {output} are not "
            "those of the original."
        )
    return failures


def _range(volume: Volume) -> tuple[float, float, bool]:
    """Smallest and largest intensity, and whether all are whole numbers."""
    lowest, highest, whole = np.inf, -np.inf, True
    for slab in slabs(volume.data):
        lowest, highest = min(lowest, float(slab.min())), max(highest, float(slab.max()))
        whole = whole and (slab.dtype.kind in "biu" or bool((slab == np.rint(slab)).all()))
    return lowest, highest, whole


def _open_record(output: Path, settings: dict[str, Any], source: Path) -> dict[str, Any]:
    """The record of an earlier packing with these settings, or a new one, which is written."""
    if output.resolve() == source:
        raise DataError(f"{output}: would overwrite the dataset itself; name another --output_dir.")
    path = output / RECORD
    if not path.is_file():
        if output.is_dir() and any(is_nifti_name(entry.name) for entry in output.iterdir()):
            raise DataError(
                f"{output}: holds scans that were not packed here; name another --output_dir "
                "(nothing was overwritten)."
            )
        record = {**settings, "cases": {}}
        _write_record(path, record)
        return record
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        earlier = {key: value for key, value in record.items() if key != "cases"}
        complete = isinstance(record["cases"], dict)
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); delete {output} and pack again.") from error
    if earlier != settings or not complete:
        changed = sorted(k for k in {*earlier, *settings} if earlier.get(k) != settings.get(k))
        raise DataError(
            f"{output}: was packed with other settings ({', '.join(changed)}); name another "
            "--output_dir (nothing was overwritten)."
        )
    return record


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        atomic_write_text(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise unwritable(path, error) from error


def _pack_case(case: Case, output: Path, record: dict[str, Any], bits: int, modality: str) -> None:
    image_path, label_path = (output / f"{kind}_{case.name}.nii.gz" for kind in ("image", "label"))
    sources = {"image": file_hash(case.image)}
    if case.label is not None:
        sources["label"] = file_hash(case.label)
    packed = {"image": image_path, "label": label_path}
    known = record["cases"].get(case.name, {})
    if known.get("source_sha256") == sources and known.get("sha256") == {
        kind: file_hash(packed[kind]) for kind in sources if packed[kind].is_file()
    }:
        return
    volume = load_image(case.image)
    label = None if case.label is None else load_label(case.label, volume)
    packing = fit_packing(volume, bits, modality)
    _write_image(image_path, volume, packing)
    if label is not None:
        save_mask(label_path, np.asarray(label.data), image_path)
    record["cases"][case.name] = {
        "source_sha256": sources,
        "sha256": {kind: file_hash(packed[kind]) for kind in sources},
        "slope": packing.slope,
        "intercept": packing.intercept,
    }
    _write_record(output / RECORD, record)


def _write_image(path: Path, volume: Volume, packing: Packing) -> None:
    stored = np.empty(volume.shape, np.min_scalar_type(packing.levels), order="F")
    start = 0
    for slab in slabs(volume.data):
        stored[..., start : start + slab.shape[-1]] = packing(slab)
        start += slab.shape[-1]
    image = nibabel.Nifti1Image(stored, volume.affine)
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(packing.slope, packing.intercept)
    write_nifti(image, path)


def _sizes(cases: Sequence[Case], packed: dict[str, Any], output: Path) -> str:
    before = after = 0
    for case in cases:
        if case.name in packed:
            sources = [path for path in (case.image, case.label) if path is not None]
            before += sum(_size(path) for path in sources)
            after += sum(
                _size(output / f"{kind}_{case.name}.nii.gz") for kind in ("image", "label")
            )
    count = sum(case.name in packed for case in cases)
    return (
        f"{output}: {count} of {len(cases)} cases, {after / 2**20:.1f} MiB in place of "
        f"{before / 2**20:.1f} MiB"
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.iterdir())
    return path.stat().st_size if path.exists() else 0
