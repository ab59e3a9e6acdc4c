"""The index of packed bundles: what there is, what it holds, how good it was measured to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.json_text import parse_json

INDEX = "index.json"
FORMAT = 1
# of the pages in docs/benchmark, as tools/benchmark.py writes them
TABLE = "### Dice in %, mean over structures"
_NO_FIGURES = ("method", "labelled slices", "WV gap")


def entry(
    root: Path, metadata: dict[str, Any], archive: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what the index says about one archive.

    Args:
        root: the bundle's folder.
        metadata: its metadata.json.
        archive: the packed bundle.
        facts: size, sha256 and whatever else the packer knows.
    """
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    names = [channels[key] for key in sorted(channels, key=int)]
    packages = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    return {
        "name": root.name,
        "version": metadata["version"],
        "file": archive.name,
        **facts,
        **{key: metadata[key] for key in ("task", "description", "copyright", "intended_use")},
        "structures_of_default_pack": [name for name in names if name != "background"],
        "required_packages": packages,
        "measured": list(measured(root)),
    }


def measured(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures of a bundle's benchmark pages, one per line that is about the bundle.

    The pages are the one source: they are written by tools/benchmark.py from its results, and no
    figure is copied into metadata.json, where it would grow old.

    Args:
        root: the bundle's folder; a line is its own if the method bears its name, with nothing or
            "(shipped)" behind it.
    """
    for page in sorted((root / "docs" / "benchmark").glob("*.md")):
        weights = ""
        table: list[list[str]] | None = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                weights = line.removeprefix("## ") if line.startswith("## ") else weights
                table = [] if line.startswith(TABLE + " [") else None
            elif table is not None and line.startswith("|"):
                table.append([cell.strip() for cell in line.strip("|").split("|")])
                if table[-1][0] in (root.name, f"{root.name} (shipped)"):
                    place = page.relative_to(root).as_posix()
                    yield {"page": place, "weights": weights, **_figures(table[0], table[-1])}


def _figures(titles: list[str], cells: list[str]) -> dict[str, Any]:
    figures = {}
    for title, cell in zip(titles, cells, strict=True):
        number = re.match(r"-?\d+(\.\d+)?", cell)  # the interval behind it stays on the page
        if number and title not in _NO_FIGURES:
            figures[title.replace("`", "")] = float(number[0])
    return {"labelled_slices": cells[titles.index("labelled slices")], "dice_percent": figures}


def update_index(folder: Path, new: dict[str, Any]) -> Path:
    """Put an entry into the index of a folder; one of the same name and version is replaced.

    Raises:
        ValueError: there is an index, but not one of ours.
    """
    path = folder / INDEX
    bundles = []
    if path.exists():
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no index of bundles ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} is no index of bundles")
        bundles = content["bundles"]
    key = (new["name"], new["version"])
    bundles = [each for each in bundles if (each["name"], each["version"]) != key] + [new]
    bundles.sort(key=lambda each: (each["name"], each["version"]))
    text = json.dumps({"format": FORMAT, "bundles": bundles}, indent=2, ensure_ascii=False)
    return atomic_write_text(path, text + "\n")
