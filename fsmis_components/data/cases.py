"""The finder of cases: which scans, and which label belongs to which, lie in a folder."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fsmis_components.data.case_search import STRANGER, Case, FolderSearch, Labels, Section, Unused
from fsmis_components.data.errors import DataError, unreadable
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.volume_names import is_image_name, scan_name

_DATALIST_KEYS = {"training": ("training",), "all": ("training", "validation", "test", "testing")}
_LISTS = (".txt", ".csv")
_SHOWN = 10
_SHOWN_IN_ERROR = 3
_LAYOUTS = (
    "image_<id>.nii.gz with label_<id>.nii.gz, images/ with labels/, imagesTr/ with labelsTr/, "
    "or a datalist JSON"
)


@dataclass(frozen=True)
class FoundCases:
    """What lies in a folder."""

    folder: Path
    cases: list[Case]  # in natural order of their names (2 before 10)
    unused: list[Unused]  # files and folders that are no scans of ours, each with the reason

    def tell(self) -> None:
        """Say what is unused at the start of a run; of several processes the first one does."""
        if not self.unused or os.environ.get("RANK", "0") != "0":
            return
        lines = [f"  {path}: {why}" for path, why in self.described()]
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"  and {len(lines) - _SHOWN} more"]
        tqdm.write("\n".join([f"{self.folder}: {len(self.unused)} not used", *lines]))

    def described(self) -> list[tuple[str, str]]:
        """The unused ones by their path below the folder."""
        return [(_below(path, self.folder).as_posix(), why) for path, why in self.unused]


def search_cases(
    folder: str | Path, *, labels: Labels = "optional", section: Section = "all"
) -> FoundCases:
    """Find the scans of a folder or datalist, and what in it is not used.

    Args:
        folder: one of these, tried in this order: a `.txt` or `.csv` file with one path per line
            (of a table the first column); a datalist JSON file, or a folder with a `dataset.json`
            that lists files; the Decathlon folders `imagesTr`, `labelsTr`, `imagesTs`; `images/`
            with `labels/` (same file names); `image_<id>` with `label_<id>`; any other files of a
            format that is read, as images without labels. A folder of a DICOM series counts as an
            image of its name, at any depth; other scans in subfolders are found where none lies
            beside the subfolder. Of nnU-Net's `case_0000`, `case_0001` the first channel counts.
        labels: "required": each scan must have one; "optional": where there is one; "never":
            labels are not looked for.
        section: "training": of layouts that tell training and test apart, the training cases.

    Raises:
        DataError: no such folder, no image in it, a label is missing, two scans of one name, a
            broken JSON file.
    """
    folder = Path(folder).expanduser()
    if not folder.exists():
        raise DataError(f"{folder}: there is no such file or folder; check the path.")
    kind = folder.suffix.lower() if folder.is_file() else ""
    if folder.is_file() and kind not in (".json", *_LISTS):
        raise DataError(
            f"{folder}: expected a folder, a datalist .json, or a .txt or .csv file with one path "
            "per line; name the folder."
        )
    datalist = folder / "dataset.json" if folder.is_dir() else folder
    search = FolderSearch(labels, section)
    if kind in _LISTS:
        search.cases = _from_list(folder, kind)
    elif datalist.is_file() and (content := _read_datalist(datalist)) is not None:
        search.cases = _from_datalist(datalist, content, labels, section)
    else:
        try:
            search.folder(folder)
        except OSError as error:
            raise unreadable(folder, error) from error
    # what may be a scan comes first
    search.unused.sort(key=lambda entry: entry[1] == STRANGER)
    if not search.cases:
        left = [f"{_below(path, folder)}: {why}" for path, why in search.unused[:_SHOWN_IN_ERROR]]
        shown = f" (not used: {' | '.join(left)})" if left else ""
        raise DataError(f"{folder}: no image found; expected {_LAYOUTS}{shown}.")
    cases = _unique(search.cases, folder)
    if labels == "required":
        cases, found = _labelled(cases, folder)
        search.unused += found
    return FoundCases(folder, sorted(cases, key=lambda case: _natural(case.name)), search.unused)


def find_cases(
    folder: str | Path, *, labels: Labels = "optional", section: Section = "all"
) -> list[Case]:
    """The cases of `search_cases`."""
    return search_cases(folder, labels=labels, section=section).cases


def select_cases(cases: Sequence[Case], names: Sequence[str | int] | str | int) -> list[Case]:
    """The cases of the given names, file stems or numbers, in the order of the names.

    7 also finds "007"; one string may hold several, separated by commas. A name that no case has,
    or that fits several, is a `DataError`.
    """
    if isinstance(names, str | int):
        names = [part for part in str(names).strip("[]() ").split(",") if part.strip()]
    known = ", ".join(case.name for case in cases)
    chosen: dict[str, Case] = {}
    for name in names:
        text = str(name).strip("'\" ")
        found = [case for case in cases if text in (case.name, case.stem)]
        if not found and text.isdecimal():
            found = [c for c in cases if c.name.isdecimal() and int(c.name) == int(text)]
        if len(found) != 1:
            trouble = "no case" if not found else "several cases"
            raise DataError(f"id {text}: {trouble} of this name; use one of: {known}.")
        chosen[found[0].name] = found[0]
    if not chosen:
        raise DataError(f"ids: expected at least one name, got none; use some of: {known}.")
    return list(chosen.values())


def _read_datalist(path: Path) -> dict[str, Any] | None:
    """The content of a datalist; None for a `dataset.json` that lists no files (nnU-Net's)."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error}); repair it.") from error
    fields = content if isinstance(content, dict) else {}
    if any(isinstance(fields.get(key), list) for key in _DATALIST_KEYS["all"]):
        return fields
    if path.name == "dataset.json":
        return None
    raise DataError(
        f"{path}: expected a datalist with a list 'training' or 'test' of "
        '{"image": ..., "label": ...}; see the MONAI datalist format.'
    )


def _from_list(path: Path, kind: str) -> list[Case]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable list of paths ({error}); repair it.") from error
    if kind == ".csv":
        lines = [row[0] for row in csv.reader(lines) if row]
        lines = lines[lines[:1] in (["image"], ["path"]) :]
    paths = [line.strip() for line in lines if line.strip()]
    if address := next((each for each in paths if "://" in each), None):
        raise DataError(
            f"{path}: lists {address}, an address; scans are read from file systems, so mount the "
            "storage or copy them, and list their paths."
        )
    # whether each is there is found when it is read: on a share, asking for many takes minutes
    return [Case(scan_name(Path(each)), path.parent / each) for each in paths]


def _from_datalist(
    path: Path, content: dict[str, Any], labels: Labels, section: Section
) -> list[Case]:
    cases = []
    for entry in (entry for key in _DATALIST_KEYS[section] for entry in content.get(key) or []):
        fields = entry if isinstance(entry, dict) else {"image": entry}
        image, label = fields.get("image"), fields.get("label")
        if not isinstance(image, str) or not isinstance(label, str | None):
            raise DataError(
                f"{path}: an entry is {entry!r}; each needs one 'image' path and at most one "
                "'label' path."
            )
        wanted = path.parent / label if label and labels != "never" else None
        case = Case(scan_name(Path(image)), path.parent / image, wanted)
        for file in filter(None, (case.image, case.label)):
            if not file.exists():
                raise DataError(f"{file}: listed in {path}, but there is no such file.")
        cases.append(case)
    return cases


def _labelled(cases: list[Case], folder: Path) -> tuple[list[Case], list[Unused]]:
    """The labelled cases; of scans in subfolders, labels are not demanded."""
    labelled = [case for case in cases if case.label]
    places = {case.image.parent for case in labelled}
    missing = [case.image for case in cases if not case.label]
    demanded = sorted(
        image.name
        for image in missing
        if not labelled or is_image_name(image.name) or image.parent in places
    )
    if demanded:
        shown = ", ".join(demanded[:_SHOWN_IN_ERROR])
        more = f" and {len(demanded) - _SHOWN_IN_ERROR} more" if demanded[_SHOWN_IN_ERROR:] else ""
        raise DataError(f"{folder}: no label for {shown}{more}; expected {_LAYOUTS}.")
    return labelled, [(image, "a scan without a label") for image in missing]


def _unique(cases: list[Case], folder: Path) -> list[Case]:
    """Cases of distinct names: files that share theirs bear their path below the folder."""
    counts = Counter(case.stem for case in cases)
    named = []
    for case in cases:
        parents = _below(case.image, folder).parent.parts
        if counts[case.stem] > 1 and parents:
            stem = "_".join([*parents, case.stem])
            case = replace(case, name=stem, alias=stem)
        named.append(case)
    for key in ("stem", "name"):
        first: dict[str, Case] = {}
        for case in named:
            called = getattr(case, key)
            if (other := first.setdefault(called, case)) is not case:
                raise DataError(
                    f"{folder}: {_below(other.image, folder)} and {_below(case.image, folder)} "
                    f"would both be called {called}; remove or rename one of the two."
                )
    return named


def _below(path: Path, folder: Path) -> Path:
    root = folder if folder.is_dir() else folder.parent
    if path.is_relative_to(root):
        return path.relative_to(root)
    return Path(path.parent.name, path.name)


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]
