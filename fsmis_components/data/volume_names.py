"""What the name of a file says: a volume of a known format, a label, a result, a channel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# the longest that fits comes first: ".seg.nrrd" before ".nrrd"
VOLUME_SUFFIXES = (
    *(".nii.gz", ".nii", ".mgz", ".mgh"),
    *(".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd"),
)
DETACHED_SUFFIXES = (".raw", ".raw.gz", ".zraw")  # the voxels that such headers refer to
_RESULTS = ("_seg", "_uncertainty")  # a later run over the same folder takes no mask for a scan
_LABEL_WORDS = r"(?:labels?|masks?|segmentations?|segs?|dseg|probseg)"
_LABEL_NAME = re.compile(rf"{_LABEL_WORDS}(?:[_.-].*)?|.*[_.-]{_LABEL_WORDS}", re.IGNORECASE)
_LABEL_FOLDER = re.compile(rf"{_LABEL_WORDS}(?:Tr|Ts)?|derivatives", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<base>.*)_(?P<channel>\d{4})", re.ASCII)
_MOST_CHANNELS = 10  # more files of one base are scans that somebody has numbered


def is_volume_name(name: str) -> bool:
    """Whether a file name has the ending of a format that is read."""
    return name.lower().endswith(VOLUME_SUFFIXES)


def strip_volume_suffix(name: str) -> str:
    """File name without the ending of a format that is read, in capitals or not."""
    ending = next((suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(ending)]


def volume_parts(path: Path) -> list[Path]:
    """The files of a volume: of a DICOM folder, of a header with its voxels, or the file itself."""
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file())
    if path.suffix.lower() in (".mhd", ".nhdr"):
        return [path, *(part for part in sorted(path.parent.iterdir()) if is_data_of(part, path))]
    return [path]


def is_data_of(path: Path, header: Path) -> bool:
    """Whether a file is named as the voxels of a detached header beside it."""
    name = path.name.lower()
    return name.startswith(f"{header.stem}.".lower()) and name.endswith(DETACHED_SUFFIXES)


def scan_name(path: Path) -> str:
    """File name without ending and without a leading "image_", in capitals or not."""
    stem = strip_volume_suffix(path.name)
    return stem[len("image_") :] if is_image_name(stem) else stem


def is_image_name(name: str) -> bool:
    """Whether a name begins with "image_", in capitals or not."""
    return name.lower().startswith("image_")


def is_label_name(name: str) -> bool:
    """Whether a file is named as a label: label_7, p1_mask, seg, x.seg.nrrd."""
    if name.lower().endswith(".seg.nrrd"):
        return True
    return _LABEL_NAME.fullmatch(strip_volume_suffix(name)) is not None


def is_label_folder(name: str) -> bool:
    """Whether a folder is named as one of labels: labels, masks, derivatives."""
    return _LABEL_FOLDER.fullmatch(name) is not None


def is_result_name(name: str) -> bool:
    """Whether a file is named as our own output."""
    return strip_volume_suffix(name).endswith(_RESULTS)


def labelled_stem(name: str) -> str:
    """The stem without what makes it a label or a result: "p1" of p1_mask and of label_p1."""
    stem = strip_volume_suffix(name).removesuffix("_uncertainty")
    stem = re.sub(rf"^{_LABEL_WORDS}(?:[_.-]|$)", "", stem, flags=re.IGNORECASE)
    return re.sub(rf"(?:^|[_.-]){_LABEL_WORDS}$", "", stem, flags=re.IGNORECASE)


def nnunet_channels(paths: Iterable[Path], certain: bool) -> dict[Path, tuple[str, int]]:
    """Scan name and channel of files in nnU-Net's convention, case_0000 for the first channel.

    Where a folder is not for `certain` of nnU-Net's layout, scan_0000, scan_0001 may be numbers of
    scans: only names that hold a number before the channel count, and few channels.
    """
    bases: dict[str, list[tuple[Path, int]]] = {}
    for path in paths:
        if match := _CHANNEL.fullmatch(scan_name(path)):
            bases.setdefault(match["base"], []).append((path, int(match["channel"])))
    return {
        path: (base, channel)
        for base, files in bases.items()
        if min(channel for _, channel in files) == 0
        and (certain or (re.search(r"\d", base) and len(files) <= _MOST_CHANNELS))
        for path, channel in files
    }
