"""The search of a folder tree for scans: which files are scans, and why the others are not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fsmis_components.data.dicom import is_dicom_file
from fsmis_components.data.volume_names import (
    DETACHED_SUFFIXES,
    is_image_name,
    is_label_folder,
    is_label_name,
    is_result_name,
    is_volume_name,
    labelled_stem,
    nnunet_channels,
    scan_name,
    strip_volume_suffix,
)

Labels = Literal["required", "optional", "never"]
Section = Literal["training", "all"]
Unused = tuple[Path, str]

STRANGER = "no format of scans that is read; convert a scan to .nii.gz"
_BESIDE_SCANS = "in a folder beside scans; name that folder to use it"
_KNOWN = {"cases.csv", "run.json", "report.html", "overlays"}  # our own output
_KNOWN |= {"packed.json", "prepared.json", "dataset.json", "DICOMDIR"}
_SECTIONS: dict[str, tuple[str, ...]] = {"training": ("Tr",), "all": ("Tr", "Ts")}


@dataclass(frozen=True)
class Case:
    """One scan and, where there is one, its label."""

    name: str  # in tables and --support_ids: the file name without suffix and leading "image_"
    image: Path  # a file of a format that is read, or folder of a DICOM series
    label: Path | None = None  # None where there is none or it was not looked for
    # in place of the file name, where that is too long or files in several folders share theirs
    alias: str | None = None

    @property
    def stem(self) -> str:
        """File name without suffix, "image_7"; outputs are called "<stem>_seg.nii.gz"."""
        return self.alias or strip_volume_suffix(self.image.name)


@dataclass
class FolderSearch:
    """Collects the scans of a folder and of the folders in it."""

    labels: Labels  # whether labels are looked for; their files are never opened
    section: Section  # of layouts that tell training and test scans apart
    cases: list[Case] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    _seen: set[Path] = field(default_factory=set)

    def folder(self, folder: Path) -> None:
        """Search a folder in whatever layout it has.

        Raises:
            OSError: it cannot be read.
        """
        if folder.resolve() in self._seen:  # a link that leads back
            return
        self._seen.add(folder.resolve())
        parts, wanted = _SECTIONS["all"], _SECTIONS[self.section]
        if not any((folder / f"images{part}").is_dir() for part in parts):
            parts = wanted = ("",)
            if not (folder / "images").is_dir():
                self._files(folder)
                return
        for part in wanted:
            images, labels = folder / f"images{part}", folder / f"labels{part}"
            if images.is_dir():
                looked = self.labels != "never" and labels.is_dir()
                self._files(images, _by_name(_entries(labels)) if looked else {})
        known = {*_KNOWN, *(f"{kind}{part}" for kind in ("images", "labels") for part in parts)}
        places = " and ".join(f"images{part}" for part in wanted)
        strangers = [path for path in _entries(folder) if path.name not in known]
        self._leave(strangers, f"beside {places}, where the scans are looked for")

    def _files(self, folder: Path, paired: dict[str, Path] | None = None) -> None:
        """Sort the entries of one folder; `paired`: the labels, where they lie in their own."""
        scans: list[Path] = []
        labels: list[Path] = []
        below: list[tuple[Path, FolderSearch]] = []
        slices: list[Path] = []
        files: list[Path] = []
        for path in _entries(folder):
            # by name first: labels are neither opened nor asked for their kind
            if is_volume_name(path.name):
                (labels if _is_no_scan(path, paired is None) else scans).append(path)
            elif path.name in _KNOWN or path.name.lower().endswith(DETACHED_SUFFIXES):
                pass
            elif paired is None and is_label_folder(path.name):
                self._leave([path], "named as labels; a folder of scans needs another name")
            elif path.is_dir():
                below.append((path, self._searched(path)))
            else:
                try:
                    (slices if is_dicom_file(path) else files).append(path)
                except OSError as error:
                    self._leave([path], _no_access(error))
        labelled = _by_name(labels) if paired is None and self.labels != "never" else paired or {}
        prefixed = [path for path in scans if is_image_name(path.name)]
        first = len(self.cases)
        # a stray slice makes no case of a folder whose scans lie in it or below
        found = len(scans) + sum(len(inner.cases) for _, inner in below)
        if len(slices) > found and not prefixed:
            self.cases.append(Case(scan_name(folder), folder))
            self._leave(scans, "beside the slices of a DICOM series; give it a folder of its own")
        else:
            self._leave(slices, "a DICOM slice beside scans; give a series a folder of its own")
            if prefixed and paired is None:
                rest = [path for path in scans if not is_image_name(path.name)]
                self._leave(rest, "not called image_<id>, as the scans beside it are")
                scans = prefixed
            self._add(scans, labelled if prefixed or paired is not None else {}, paired is not None)
        self._leave(files, STRANGER)
        beside = len(self.cases) > first
        for path, inner in below:
            for case in inner.cases:
                if case.image == path and (paired is not None or is_image_name(path.name)):
                    case = Case(case.name, case.image, labelled.get(case.name))
                if beside and not case.image.is_dir():  # beside scans only DICOM series
                    self._leave([case.image], _BESIDE_SCANS)
                else:
                    self.cases.append(case)
            self.unused += inner.unused
        # labels and results of scans that are here are no news
        known = {name for case in self.cases[first:] for name in (case.stem, case.name, "")}
        orphans = [path for path in labels if labelled_stem(path.name) not in known]
        self._leave(orphans, "named as the label or the result of a scan that is not here")

    def _add(self, scans: list[Path], labelled: dict[str, Path], certain: bool) -> None:
        channels = nnunet_channels(scans, certain)
        for path in scans:
            name, channel = channels.get(path, (scan_name(path), 0))
            if channel:
                self._leave([path], "a further channel of a scan; one channel is used, _0000")
            else:
                label = labelled.get(name) or labelled.get(scan_name(path))
                self.cases.append(Case(name, path, label))

    def _searched(self, path: Path) -> FolderSearch:
        inner = FolderSearch(self.labels, self.section, _seen=self._seen)
        try:
            if (path / "run.json").is_file():
                inner._leave([path], "the output folder of a run")
            else:
                inner.folder(path)
        except OSError as error:
            inner._leave([path], _no_access(error))
        told = (left.parent != path or is_volume_name(left.name) for left, _ in inner.unused)
        if not inner.cases and not any(told):
            inner.unused = [(path, "a folder without scans")]
        return inner

    def _leave(self, paths: list[Path], reason: str) -> None:
        self.unused += [(path, reason) for path in paths]


def _is_no_scan(path: Path, free: bool) -> bool:
    """Whether a file is a label or a result; in a folder of images any name may be a scan's."""
    if path.name.lower().endswith(".seg.nrrd") or is_result_name(path.name):
        return True
    return free and not is_image_name(path.name) and is_label_name(path.name)


def _no_access(error: OSError) -> str:
    return f"cannot be read ({error.strerror or error})"


def _by_name(labels: list[Path]) -> dict[str, Path]:
    """Label files by the name of their case."""
    names = {path: scan_name(path) for path in labels if is_volume_name(path.name)}
    return {re.sub("^label_", "", name, flags=re.I): path for path, name in names.items()}


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
