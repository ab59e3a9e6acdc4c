"""The finder of cases: which scans, and which label belongs to which, lie in a folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fsmis_components.data.dicom import is_dicom_series
from fsmis_components.data.errors import DataError
from fsmis_components.data.nifti import is_nifti_name, strip_nifti_suffix

Labels = Literal["required", "optional", "never"]
Section = Literal["training", "test", "all"]

_DATALIST_KEYS = {
    "training": ("training",),
    "test": ("test", "testing"),
    "all": ("training", "validation", "test", "testing"),
}
_OWN_OUTPUT = ("_seg", "_uncertainty")  # a later run over the same folder takes no mask for a scan
_LAYOUTS = (
    "image_<id>.nii.gz with label_<id>.nii.gz, images/ with labels/, imagesTr/ with labelsTr/, "
    "or a datalist JSON"
)


@dataclass(frozen=True)
class Case:
    """One scan and, where there is one, its label.

    Attributes:
        name: what tables and --support_ids call it: the file name without suffix and without a
            leading "image_".
        image: NIfTI file, or folder of a DICOM series.
        label: NIfTI file; None where there is none or it was not looked for.
        alias: in place of the file name, where files in several folders share theirs.
    """

    name: str
    image: Path
    label: Path | None = None
    alias: str | None = None

    @property
    def stem(self) -> str:
        """File name without suffix, "image_7"; outputs are called "<stem>_seg.nii.gz"."""
        return self.alias or strip_nifti_suffix(self.image.name)


def find_cases(
    folder: str | Path, *, labels: Labels = "optional", section: Section = "all"
) -> list[Case]:
    """Find the scans of a folder or datalist, in natural order of their names (2 before 10).

    Args:
        folder: one of these, tried in this order: a datalist JSON file, or a folder with a
            `dataset.json` that lists files; the Decathlon folders `imagesTr`, `labelsTr`,
            `imagesTs`; `images/` with `labels/` (same file names); `image_<id>` with `label_<id>`;
            any other NIfTI files, as images without labels. A folder of a DICOM series counts as
            an image of its name. Hidden files and `*_seg.nii.gz` (our own output) are left out.
        labels: "required": each scan must have one; "optional": where there is one; "never":
            labels are not looked for.
        section: "training" or "test" of layouts that tell them apart, "all" of a datalist also
            has its validation cases; the other layouts give the same cases for each section.

    Returns:
        At least one case.

    Raises:
        DataError: no such folder, no image in it, a label is missing, two scans of one name, a
            broken JSON file.
    """
    folder = Path(folder).expanduser()
    if labels not in ("required", "optional", "never") or section not in _DATALIST_KEYS:
        raise ValueError(f"find_cases: unknown labels {labels!r} or section {section!r}")
    if not folder.exists():
        raise DataError(f"{folder}: there is no such file or folder; check the path.")
    if folder.is_file() and folder.suffix.lower() != ".json":
        raise DataError(f"{folder}: expected a folder or a datalist .json; name the folder.")
    datalist = folder / "dataset.json" if folder.is_dir() else folder
    content = _read_datalist(datalist) if datalist.is_file() else None
    if content is not None:
        cases = _from_datalist(datalist, content, labels, section)
    else:
        cases = _from_folder(folder, labels, section)
    if not cases:
        part = "" if section == "all" else f" for section {section}"
        raise DataError(f"{folder}: no image found{part}; expected {_LAYOUTS}.")
    if labels == "required":
        _check_labelled(cases, folder)
    return sorted(_unique(cases, folder), key=lambda case: _natural(case.name))


def select_cases(cases: Sequence[Case], names: Sequence[str | int] | str | int) -> list[Case]:
    """The cases of the given names, in the order of the names.

    Args:
        cases: from `find_cases`.
        names: names, file stems or numbers; 7 also finds "007". One string may hold several,
            separated by commas.

    Raises:
        DataError: a name that no case has, or that fits several.
    """
    if isinstance(names, str):
        names = [part.strip() for part in names.strip("[]() ").split(",") if part.strip()]
    elif isinstance(names, int):
        names = [names]
    known = ", ".join(case.name for case in cases)
    chosen: list[Case] = []
    for name in names:
        text = str(name).strip("'\" ")
        found = [case for case in cases if text in (case.name, case.stem)]
        if not found and text.isdecimal():
            found = [c for c in cases if c.name.isdecimal() and int(c.name) == int(text)]
        if len(found) != 1:
            trouble = "no case" if not found else "several cases"
            raise DataError(f"id {text}: {trouble} of this name; use one of: {known}.")
        if found[0] not in chosen:
            chosen.append(found[0])
    if not chosen:
        raise DataError(f"ids: expected at least one name, got none; use some of: {known}.")
    return chosen


def _from_folder(folder: Path, labels: Labels, section: Section) -> list[Case]:
    if (folder / "imagesTr").is_dir() or (folder / "imagesTs").is_dir():
        parts = {"training": ("Tr",), "test": ("Ts",), "all": ("Tr", "Ts")}[section]
        return [
            case
            for part in parts
            for case in _paired_folders(folder / f"images{part}", folder / f"labels{part}", labels)
        ]
    if (folder / "images").is_dir():
        return _paired_folders(folder / "images", folder / "labels", labels)
    if is_dicom_series(folder):
        return [_case(folder, None)]
    entries = _images(folder)
    prefixed = [path for path in entries if path.name.startswith("image_")]
    if prefixed:
        own = _labels_by_name(folder, "label_") if labels != "never" else {}
        return [_case(path, own.get(_name(path))) for path in prefixed]
    return [_case(path, None) for path in entries if not path.name.startswith("label_")]


def _paired_folders(images: Path, labels_folder: Path, labels: Labels) -> list[Case]:
    own = _labels_by_name(labels_folder) if labels != "never" else {}
    return [_case(path, own.get(_name(path))) for path in _images(images)]


def _images(folder: Path) -> list[Path]:
    """NIfTI files and DICOM series folders, without hidden ones and our own output."""
    images = []
    for path in _visible(folder):
        if is_nifti_name(path.name):
            if not strip_nifti_suffix(path.name).endswith(_OWN_OUTPUT):
                images.append(path)
        elif path.is_dir() and is_dicom_series(path):
            images.append(path)
    return images


def _labels_by_name(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Label files by the name of their case; only those whose file name starts by the prefix."""
    found = {}
    for path in _visible(folder):
        if is_nifti_name(path.name) and path.name.startswith(prefix):
            found[_name(path).removeprefix("label_")] = path
    return found


def _visible(folder: Path) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in entries if not path.name.startswith("."))


def _name(path: Path) -> str:
    return strip_nifti_suffix(path.name).removeprefix("image_")


def _case(image: Path, label: Path | None) -> Case:
    return Case(_name(image), image, label)


def _read_datalist(path: Path) -> dict[str, Any] | None:
    """The content of a datalist; None for a `dataset.json` that lists no files (nnU-Net's)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); repair it.") from error
    lists = isinstance(content, dict) and any(
        isinstance(content.get(key), list) for key in _DATALIST_KEYS["all"]
    )
    if lists:
        return dict(content)
    if path.name == "dataset.json":
        return None
    raise DataError(
        f"{path}: expected a datalist with a list 'training' or 'test' of "
        '{"image": ..., "label": ...}; see the MONAI datalist format.'
    )


def _from_datalist(
    path: Path, content: dict[str, Any], labels: Labels, section: Section
) -> list[Case]:
    cases = []
    for key in _DATALIST_KEYS[section]:
        for entry in content.get(key) or []:
            fields = entry if isinstance(entry, dict) else {"image": entry}
            image, label = fields.get("image"), fields.get("label")
            if not isinstance(image, str) or not isinstance(label, (str, type(None))):
                raise DataError(
                    f"{path}: an entry of '{key}' is {entry!r}; each needs one 'image' path and "
                    "at most one 'label' path."
                )
            wanted = path.parent / label if label and labels != "never" else None
            case = _case(path.parent / image, wanted)
            for file in (case.image, case.label):
                if file is not None and not file.exists():
                    raise DataError(f"{file}: listed in {path}, but there is no such file.")
            cases.append(case)
    return cases


def _check_labelled(cases: Iterable[Case], folder: Path) -> None:
    missing = [case.image.name for case in cases if case.label is None]
    if missing:
        more = "" if len(missing) <= 3 else f" and {len(missing) - 3} more"
        raise DataError(
            f"{folder}: no label for {', '.join(sorted(missing)[:3])}{more}; expected {_LAYOUTS}."
        )


def _unique(cases: list[Case], folder: Path) -> list[Case]:
    """Cases of distinct names: files that share theirs also bear the name of their folder."""
    counts = Counter(case.stem for case in cases)
    named = []
    for case in cases:
        if counts[case.stem] > 1:
            alias = f"{case.image.parent.name}_{case.stem}"
            case = replace(case, name=alias, alias=alias)
        named.append(case)
    for name, count in Counter(case.stem for case in named).items():
        if count > 1:
            raise DataError(f"{folder}: two images are called {name}; rename or remove one.")
    return named


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
