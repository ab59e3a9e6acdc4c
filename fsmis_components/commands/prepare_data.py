"""Data sets, public ones as they are downloaded, in the layout and geometry of papers."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCrop, Compose, ResizeWithPadOrCrop, Spacing
from PIL import Image
from tqdm import tqdm

from fsmis_components.commands.command_line import chosen
from fsmis_components.data.atomic import atomic_write_text, check_writable, lock_folder
from fsmis_components.data.cases import find_cases
from fsmis_components.data.dicom import series_slices
from fsmis_components.data.errors import DataError, failure_sentence, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.nifti import write_nifti
from fsmis_components.data.safe_text import csv_table, parse_json
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.reporting.drawing import save_overlay
from fsmis_components.support.support_set import choose_structures, label_names

_RECORD = "prepared.json"
_GREY_STEP, _GREY_OFF = 63, 8  # of CHAOS's label pictures: structure n is about 63 n
_CHANGED = 0.1  # share by which a structure may grow or shrink before the table says so
_THICK = 1.5  # slices whose distance is so many times a pixel lie along the third axis in the end
_END = r"(?P<end>\.nii(?:\.gz)?)"


class Geometry(NamedTuple):
    """What papers do to a scan before anything else; the slices are its third axis."""

    cut_to: int | None = None  # pixels of the middle of each slice that are kept
    spacing: tuple[float, float, float] | None = None  # millimetres of the voxels
    shrink: float = 1.0  # in plane, where no spacing is given
    size: int | None = None  # pixels of a slice in the end, by cutting or by zeros


class Source(NamedTuple):
    """A public data set."""

    structures: Mapping[str, int]  # values of the labels that are written, by name
    geometry: Geometry
    label: str  # the name of a label file, which says the case's id
    image: str  # the name of its image file
    # of the labels that are downloaded, by those that are written; None: the same
    values: Mapping[int, int] | None = None


class Downloaded(NamedTuple):
    """A case as it lies in the download."""

    name: str
    image: Path
    label: Path


_ABDOMEN = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "portal and splenic vein", "pancreas"),
    *("right adrenal gland", "left adrenal gland"),
)
_KIDNEYS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
_HEART = {"right ventricle": 1, "myocardium": 2, "left ventricle": 3}
# geometries: Ouyang et al., ECCV 2020 (their released code), and for CMR the codes built on it
SOURCES = {
    "chaos_t2": Source(
        _KIDNEYS, Geometry(spacing=(1.25, 1.25, 7.7), size=256), "T2SPIR/Ground", "DICOM_anon"
    ),
    "btcv": Source(
        {name: value for value, name in enumerate(_ABDOMEN, start=1)},
        Geometry(cut_to=448, shrink=1.75),
        rf"label(?P<id>\d+){_END}",
        r"img\g<id>\g<end>",
    ),
    "acdc": Source(_HEART, Geometry(), rf"(?P<id>patient\d+_frame\d+)_gt{_END}", r"\g<id>\g<end>"),
    "cmr": Source(
        {"left ventricle": 1, "myocardium": 2, "right ventricle": 3},
        Geometry(spacing=(1.25, 1.25, 7.99), size=256),
        rf"patient(?P<id>\d+)_C0_manual{_END}",
        r"patient\g<id>_C0\g<end>",
        {1: 500, 2: 200, 3: 600},
    ),
}


def prepare(
    source: str,
    downloaded: Path,
    output: Path = Path("prepared"),
    geometry: str = "published",
    spacing: str | None = None,
    size: int | None = None,
    workers: int = min(4, os.cpu_count() or 1),
) -> list[str]:
    """Bring a data set into the benchmark's layout, public ones as they are downloaded.

    Args:
        source: chaos_t2, btcv, acdc or cmr (MS-CMRSeg 2019, bSSFP), unpacked; or folder, scans with
            labels in any layout that other commands read.
        downloaded: where it lies.
        output: receives image_ID.nii.gz, label_ID.nii.gz, dataset.json, a picture per case.
        geometry: published, as papers resample and cut; or stored, as it was downloaded.
        spacing: millimetres of the voxels, the distance of slices last, in place of the published.
        size: pixels of a slice, by cutting and by zeros, in place of the published.
        workers: cases at a time.

    Returns:
        What failed, a sentence each; the other cases are done.
    """
    if chosen("source", source, (*SOURCES, "folder")) == "folder":
        cases, wanted = _labelled(downloaded)
    else:
        wanted = SOURCES[source]
        cases = _chaos(downloaded) if source == "chaos_t2" else list(_named(downloaded, wanted))
    stored = chosen("geometry", geometry, ("published", "stored")) == "stored"
    given = _asked(Geometry() if stored else wanted.geometry, spacing, size)
    wanted = wanted._replace(geometry=given)
    if not cases:
        raise DataError(
            f"{downloaded}: nothing of {source} lies here ({wanted.label}); name the folder into "
            "which the download was unpacked."
        )
    check_writable(output, "choose another --output")
    if workers < 1:
        raise DataError(f"workers: expected 1 or more, got {workers}.")
    failures = []
    with (
        lock_folder(output),
        writing(output, "choose another --output"),
        ThreadPoolExecutor(workers) as pool,
    ):
        record = _read(output)
        atomic_write_text(output / _RECORD, json.dumps(record, indent=2))
        do = partial(_prepared, source=wanted, output=output)
        begun = [(case, pool.submit(do, case, former=record.get(case.name))) for case in cases]
        for case, future in tqdm(begun, desc="preparing", unit="scan"):
            try:
                record[case.name] = future.result()
            except Exception as error:  # whatever it is, it ends one case and not the others
                failures.append(failure_sentence(error, case.image, output))
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
            atomic_write_text(output / _RECORD, json.dumps(record, indent=2))
        labels = {str(value): name for name, value in wanted.structures.items()}
        atomic_write_text(output / "dataset.json", json.dumps({"labels": labels}, indent=2))
        columns = ("case", "voxels", "spacing", *wanted.structures, "remark")
        rows = [[made["row"].get(column, "") for column in columns] for made in record.values()]
        atomic_write_text(output / "cases.csv", csv_table([columns, *rows]))
    tqdm.write(f"{len(record)} scans, {len(failures)} failed: {output / 'cases.csv'}")
    return failures


def _asked(geometry: Geometry, spacing: str | None, size: int | None) -> Geometry:
    """The geometry with what the command line says in its place."""
    if spacing is not None:
        number = r"\s*(\d+(?:\.\d+)?)\s*"
        found = re.fullmatch(",".join([number] * 3), spacing)
        if found is None or not all(map(float, found.groups())):
            raise DataError(
                f"spacing: expected three lengths in mm, as 1.25,1.25,8, got {spacing}."
            )
        x, y, z = map(float, found.groups())
        geometry = geometry._replace(spacing=(x, y, z))
    if size is not None and size < 1:
        raise DataError(f"size: expected a number of pixels, as 256, got {size}.")
    return geometry if size is None else geometry._replace(size=size)


def _labelled(folder: Path) -> tuple[list[Downloaded], Source]:
    """The labelled scans of any layout, with the structures that their labels hold."""
    cases, names = [], label_names(folder)
    held = {*names}
    for case in find_cases(folder, labels="required"):
        if case.label is not None:
            cases.append(Downloaded(case.name, case.image, case.label))
            with suppress(DataError):  # of a case that cannot be read, which says so in its turn
                label = load_label(case.label, load_image(case.image))
                held |= {*np.unique(np.asarray(label.data)).tolist()}
    values = sorted(held - {0})
    structures = {names.get(value, f"structure_{value}"): value for value in values}
    return cases, Source(structures, Geometry(), "scans with labels", "")


def _chaos(folder: Path) -> list[Downloaded]:
    """CHAOS: MR/<id>/T2SPIR with a DICOM series and a label picture of each slice."""
    found = [path for path in folder.rglob("T2SPIR/Ground") if path.is_dir()]
    cases = [Downloaded(p.parents[1].name, p.parent / "DICOM_anon", p) for p in found]
    return sorted(cases, key=lambda case: (len(case.name), case.name))


def _named(folder: Path, source: Source) -> Iterator[Downloaded]:
    """Labels, wherever they lie, and the images that are named after them."""
    files = {path.name: path for path in sorted(folder.rglob("*.nii*")) if path.is_file()}
    for name, path in files.items():
        if match := re.fullmatch(source.label, name):
            number, image = match["id"], match.expand(source.image)
            number = str(int(number)) if number.isdecimal() else number
            yield Downloaded(number, files.get(image, path.with_name(image)), path)


def _prepared(
    case: Downloaded, source: Source, output: Path, former: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the record says of a case, which is written where it is not there yet."""
    image_path, label_path = (output / f"{k}_{case.name}.nii.gz" for k in ("image", "label"))
    picture = output / "overlays" / f"image_{case.name}.png"
    hashes = [file_hash(case.image), *map(file_hash, _parts(case.label))]
    text = json.dumps([hashes, source.geometry, source.structures])
    digest = hashlib.sha256(text.encode()).hexdigest()
    there = [path for path in (picture, label_path, image_path) if path.is_file()]
    if former is not None and there:
        if former["digest"] != digest:
            raise DataError(
                f"{there[-1]}: was made of another download or with another geometry; choose "
                "another --output."
            )
        if len(there) == 3:
            return dict(former)
    image = load_image(case.image)
    label = _label(case, image, source)
    made, numbers = _on_grid(image, label, source.geometry)
    row = {"case": case.name, "voxels": " x ".join(map(str, made.shape))}
    row["spacing"] = " x ".join(f"{length:.4g}" for length in made.spacing)
    remarks = []
    for name, value in source.structures.items():
        before, after = image.millilitres(label, value), made.millilitres(numbers, value)
        row[name] = f"{after:.3f}"
        if not before:
            remarks.append(f"no {name}")
        elif abs(after / before - 1) > _CHANGED:
            remarks.append(f"{name}: {before:.1f} ml as downloaded")
    row["remark"] = "; ".join(remarks)
    names = {value: name for name, value in source.structures.items()}
    structures = choose_structures(None, list(names), names, case.name)
    save_overlay(picture, made, numbers, structures, choose_slice_grid(made), picture.stem)
    _write(label_path, numbers, made)
    _write(image_path, np.asarray(made.data), made)
    return {"digest": digest, "row": row}


def _parts(label: Path) -> list[Path]:
    return sorted(label.glob("*.png")) if label.is_dir() else [label]


def _label(case: Downloaded, image: Volume, source: Source) -> np.ndarray:
    """The labels of a case (X, Y, Z), with the values that are written."""
    known = {value: value for value in source.structures.values()}
    if case.label.is_dir():
        stored = _label_pictures(case, image)
    else:
        stored = np.asarray(load_label(case.label, image).data)
        known = dict(source.values or known)
    strange = sorted(set(np.unique(stored).tolist()) - {0, *known.values()})
    if strange:
        raise DataError(
            f"{case.label}: holds {strange[0]}, which is no value of this data set "
            f"({', '.join(map(str, known.values()))}); download it again."
        )
    label = np.zeros(stored.shape, np.min_scalar_type(max(known)))
    for value, former in known.items():
        label[stored == former] = value
    return label


def _label_pictures(case: Downloaded, image: Volume) -> np.ndarray:
    """Labels (X, Y, Z) of grey pictures, one of each DICOM file in the order of their names."""
    slices = [Path(each.filename) for each in series_slices(case.image)]  # in that of the volume
    pictures = _parts(case.label)
    if len(pictures) != len(slices):
        raise DataError(
            f"{case.label}: {len(pictures)} label pictures of {len(slices)} slices; download it "
            "again."
        )
    of_slice = dict(zip(sorted(slices), pictures, strict=True))
    planes = []
    for path in (of_slice[each] for each in slices):
        with Image.open(path) as opened:
            grey = np.asarray(opened.convert("L")).T.astype(np.int16)  # (columns, rows)
        number = np.rint(grey / _GREY_STEP).astype(np.int16)
        if grey.shape != image.shape[:2] or np.abs(grey - _GREY_STEP * number).max() > _GREY_OFF:
            raise DataError(
                f"{path}: no label picture of its slice: expected {image.shape[0]} x "
                f"{image.shape[1]} pixels of 0, 63, 126, 189 or 252; download it again."
            )
        planes.append(number)
    return np.stack(planes, axis=-1)


def _on_grid(image: Volume, label: np.ndarray, to: Geometry) -> tuple[Volume, np.ndarray]:
    """A scan and its label in another geometry, linearly; labels by more than half of a voxel."""
    if to == Geometry():
        return image, label
    thick = int(np.argmax(image.spacing))
    if thick < 2 and image.spacing[thick] > _THICK * min(image.spacing):
        order = [*(axis for axis in range(3) if axis != thick), thick]
        affine = image.affine[:, [*order, 3]]
        image = Volume(np.asarray(image.data).transpose(order), affine, None, image.oriented)
        label = label.transpose(order)
    x, y, z = image.spacing
    spacing = to.spacing or (to.shrink * x, to.shrink * y, z)
    steps: list[Any] = [Spacing(spacing, mode="bilinear", padding_mode="border", dtype=np.float32)]
    if to.cut_to is not None:
        steps.insert(0, CenterSpatialCrop((to.cut_to, to.cut_to, -1)))
    if to.size is not None:
        steps.append(ResizeWithPadOrCrop((to.size, to.size, -1)))

    resample = Compose(steps)

    def moved(array: np.ndarray) -> MetaTensor:
        data = torch.as_tensor(array.astype(np.float32))[None]
        return resample(MetaTensor(data, affine=torch.as_tensor(image.affine)))

    made = moved(np.asarray(image.data))
    numbers = np.zeros(made.shape[1:], label.dtype)
    for value in np.unique(label[label > 0]):
        numbers[moved(label == value)[0].numpy() > 0.5] = value
    affine = made.affine.numpy().astype(np.float64)
    return Volume(made[0].numpy(), affine, None, image.oriented), numbers


def _write(path: Path, array: np.ndarray, like: Volume) -> None:
    image = nibabel.Nifti1Image(array, like.affine)
    # where the download does not say how its axes lie, this does not either
    image.set_sform(like.affine, code=int(like.oriented))
    image.set_qform(like.affine, code=int(like.oriented))
    image.header.set_xyzt_units("mm")
    write_nifti(image, path)


def _read(output: Path) -> dict[str, Any]:
    """What was prepared before; empty where nothing was."""
    path = output / _RECORD
    foreign = next(output.glob("image_*"), None)
    if foreign is not None and not path.is_file():
        raise DataError(f"{foreign}: was there before; choose another --output.")
    try:
        return dict(parse_json(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: is damaged; choose another --output.") from error
