"""A support set: the few labelled scans that define what is to be segmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fsmis_components.data.cases import Case, find_cases, search_cases, select_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.volumes import Volume, load_image, load_label

# A qualitative palette that stays apart on grey images and for most colour-blind readers.
PALETTE = (
    *("#e6550d", "#3182bd", "#31a354", "#d62fa8", "#e7ba12"),
    *("#17becf", "#8c6bb1", "#ff9896", "#98df8a", "#c49c94"),
)

LabelledSlices = Literal["sections", "all"]
Wanted = Sequence[int | str] | Mapping[str, int] | int | str | None


@dataclass(frozen=True)
class Structure:
    """One structure to segment."""

    name: str  # what tables and file metadata call it
    value: int  # its value in the support labels, and in the masks that are written
    colour: str  # "#rrggbb" for overlays

    @property
    def column(self) -> str:
        """The name as a table column: lower case, no spaces."""
        return column_name(self.name)


def column_name(name: str) -> str:
    """The name of a structure as a table column."""
    return "_".join(name.lower().split())


@dataclass(frozen=True)
class SupportScan:
    """One labelled scan: image and label share one voxel grid."""

    name: str
    image: Volume
    label: Volume


@dataclass(frozen=True)
class SupportSet:
    """Labelled scans with the structures that they define."""

    scans: tuple[SupportScan, ...]  # one to a few labelled scans (shots)
    structures: tuple[Structure, ...]  # what to segment, in the order of the network's channels
    source: str = "support"  # the folder, for messages
    # which labelled slices serve: "all", or "sections", three per structure and scan
    slices: LabelledSlices = "all"


def load_support_set(
    support_dir: str | Path,
    *,
    support_ids: Sequence[str | int] | str | int | None = None,
    structures: Wanted = None,
    num_shots: int | None = None,
) -> SupportSet:
    """Read the labelled scans of a folder.

    Args:
        support_dir: folder in any layout of `find_cases`; scans that are not named by
            `support_ids` are not opened.
        support_ids: which scans to use, in this order; None: all of the folder, each of which
            needs a label.
        structures: label values or names to segment (one string may hold several, separated by
            commas), or a mapping from name to value; None: every value above 0 that occurs.
        num_shots: use only the first so many scans; None: all.

    Raises:
        DataError: nothing labelled, a named scan has no label, a structure is in no support scan.
    """
    if support_ids is None:
        found = search_cases(support_dir, labels="required", section="training")
        found.tell()
        cases = found.cases
    else:
        cases = select_cases(find_cases(support_dir, labels="optional"), support_ids)
    if num_shots is not None:
        if not 1 <= num_shots <= len(cases):
            raise DataError(
                f"num_shots: expected 1 to {len(cases)} (the support scans of {support_dir}), "
                f"got {num_shots}; label more scans or lower --num_shots."
            )
        cases = cases[:num_shots]
    return support_set_of_cases(
        cases, structures=structures, names=label_names(support_dir), source=str(support_dir)
    )


def support_set_of_cases(
    cases: Sequence[Case],
    *,
    structures: Wanted = None,
    names: Mapping[int, str] | None = None,
    source: str = "support",
) -> SupportSet:
    """Read the labelled scans of a list of cases; arguments as `load_support_set`."""
    if not cases:
        raise DataError(f"{source}: no labelled scan; put at least one image with its label there.")
    scans = []
    present: set[int] = set()
    for case in cases:
        if case.label is None:
            raise DataError(
                f"{case.image}: a support scan needs a label, none was found beside it; "
                "add it or name other scans with --support_ids."
            )
        image = load_image(case.image)
        label = load_label(case.label, image)
        present |= {int(value) for value in np.unique(np.asarray(label.data))} - {0}
        scans.append(SupportScan(case.name, image, label))
    if not present:
        raise DataError(
            f"{source}: every support label is empty (0 everywhere); label a structure."
        )
    chosen = choose_structures(structures, sorted(present), names or {}, source)
    return SupportSet(tuple(scans), chosen, source)


def choose_structures(
    wanted: Wanted, present: Sequence[int], names: Mapping[int, str], source: str
) -> tuple[Structure, ...]:
    """Resolve the `structures` knob against the values above 0 that the support labels hold.

    `names` are those of label values where the folder tells them, `source` is the folder, for
    messages. An unknown name, or a value that no support scan holds, is a `DataError`.
    """
    known = {value: names.get(value, f"structure_{value}") for value in present}
    listing = ", ".join(f"{value} ({name})" for value, name in known.items())
    if wanted is None:
        pairs = [(name, value) for value, name in known.items()]
    elif isinstance(wanted, Mapping):
        pairs = [(str(name), int(value)) for name, value in wanted.items()]
    else:
        items = wanted.strip("[]() ").split(",") if isinstance(wanted, str) else wanted
        items = [items] if isinstance(items, int) else [item for item in items if item != ""]
        pairs = [_named_pair(item, known, names, source) for item in items]
    if not pairs:
        raise DataError("structures: expected at least one label value or name, got an empty list.")
    for name, value in pairs:
        if value not in known:
            raise DataError(
                f"{source}: structure {name} (label value {value}) is in no support scan; the "
                f"support labels hold {listing}: change --structures or label it."
            )
    if len({value for _, value in pairs}) < len(pairs):
        raise DataError(f"structures: a label value is named twice in {wanted}; name each once.")
    columns = [column_name(name) for name, _ in pairs]
    for name, _ in pairs:
        if columns.count(column_name(name)) > 1:
            raise DataError(
                f"{source}: two structures are called {name}, so that tables could not tell them "
                "apart; rename one in dataset.json or --structures."
            )
    return tuple(
        Structure(name, value, PALETTE[index % len(PALETTE)])
        for index, (name, value) in enumerate(pairs)
    )


def _named_pair(
    item: int | str, known: Mapping[int, str], names: Mapping[int, str], source: str
) -> tuple[str, int]:
    text = str(item).strip("'\" ")
    if text.lstrip("+-").isdecimal():
        value = int(text)
        return known.get(value, names.get(value, f"structure_{value}")), value
    for value, name in {**names, **known}.items():
        if name.lower() == text.lower():
            return name, value
    raise DataError(
        f"{source}: structures names '{text}', which is not among "
        f"{', '.join(known.values())}; use one of these or a label value."
    )


def label_names(folder: str | Path) -> dict[int, str]:
    """Names of the label values from a Decathlon `dataset.json`; empty without one.

    Both spellings are understood: {"1": "liver"} and {"liver": 1}.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" else path / "dataset.json"
    try:
        labels = dict(parse_json(path.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # names are a courtesy: the finder reports a broken file where it matters
    names: dict[int, str] = {}
    for key, entry in labels.items():
        if str(key).isdecimal() and isinstance(entry, str):
            names[int(key)] = entry
        elif isinstance(entry, int):
            names[entry] = str(key)
    names.pop(0, None)
    return names
