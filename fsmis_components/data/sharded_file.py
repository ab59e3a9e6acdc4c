"""A state dict as a folder of small files with checksums, replaced as one."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fsmis_components.data.atomic import atomic_write_bytes, atomic_write_text
from fsmis_components.data.errors import DataError, unwritable
from fsmis_components.data.json_text import parse_json

FORMAT = 1
SHARD_BYTES = 15 * 2**20
_INDEX = "index.json"
# the name holds the content's hash, so the parts of two states never share a name
_PART = re.compile(r"part-[0-9a-f]{12}-\d{3,}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{12}\." + _PART.pattern)


def save_sharded(
    state: Mapping[str, Any], folder: str | Path, shard_bytes: int = SHARD_BYTES
) -> Path:
    """Write a state as parts `part-<hash>-000`, ... and an `index.json` that names them.

    The index is replaced when all new parts are there, and the former parts are removed after it:
    an interruption leaves the former state or the new one. One process writes a folder.

    Args:
        state: tensors and plain values, nested as in `state_dict()`.
        folder: made when missing; files of other names in it are left alone.
        shard_bytes: largest size of a part.

    Returns:
        The folder.

    Raises:
        DataError: it cannot be written; the former state is untouched.
    """
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    total = hashlib.sha256(content).hexdigest()
    parts = []
    try:
        for number, start in enumerate(range(0, len(content), shard_bytes)):
            part = content[start : start + shard_bytes]
            name = f"part-{total[:12]}-{number:03d}"
            atomic_write_bytes(folder / name, part)
            parts.append(
                {"name": name, "bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()}
            )
        index = {"format": FORMAT, "bytes": len(content), "sha256": total, "parts": parts}
        atomic_write_text(folder / _INDEX, json.dumps(index, indent=2) + "\n")
        _remove_others(folder, {str(part["name"]) for part in parts})
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def has_sharded(folder: str | Path) -> bool:
    """Whether a state was written into the folder; its parts are not looked at."""
    return (Path(folder) / _INDEX).is_file()


def load_sharded(folder: str | Path) -> dict[str, Any]:
    """Read a state, every part checked, onto the CPU and with `weights_only=True`.

    Raises:
        DataError: the index or a part is missing or damaged; the message names it.
    """
    folder = Path(folder)
    index = _read_index(folder)
    content = io.BytesIO()
    for part in index["parts"]:
        content.write(_checked_part(folder, part))
    if hashlib.sha256(content.getbuffer()).hexdigest() != index["sha256"]:
        raise _damaged(folder, _INDEX, "its parts together are not the state that it names")
    content.seek(0)
    return torch.load(content, map_location="cpu", weights_only=True)


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the parts of former states, and what was half written when a process was killed."""
    for path in folder.iterdir():
        former = _PART.fullmatch(path.name) and path.name not in kept
        if former or _UNFINISHED.fullmatch(path.name):
            path.unlink()


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = parse_json((folder / _INDEX).read_text(encoding="utf-8"))
        complete = index["format"] == FORMAT and all(
            # a name of our own making cannot lead out of the folder
            _PART.fullmatch(part["name"]) and {"bytes", "sha256"} <= set(part)
            for part in index["parts"]
        )
    except OSError as error:
        raise _damaged(folder, _INDEX, f"cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, _INDEX, "is no index of a state") from error
    if not complete or "sha256" not in index:
        raise _damaged(folder, _INDEX, f"is no index of a state of format {FORMAT}")
    return index


def _checked_part(folder: Path, part: Mapping[str, Any]) -> bytes:
    try:
        content = (folder / part["name"]).read_bytes()
    except FileNotFoundError as error:
        raise _damaged(folder, part["name"], "this part of the state is missing") from error
    except OSError as error:
        raise _damaged(folder, part["name"], f"cannot be read ({error.strerror})") from error
    if len(content) != part["bytes"]:
        reason = f"this part of the state has {len(content)} bytes in place of {part['bytes']}"
        raise _damaged(folder, part["name"], reason)
    if hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise _damaged(folder, part["name"], "this part of the state is damaged (SHA-256 differs)")
    return content


def _damaged(folder: Path, name: str, reason: str) -> DataError:
    return DataError(
        f"{folder / name}: {reason}; copy the folder again from where it came, or delete "
        f"{folder} to begin anew."
    )
