"""Check what MONAI asks of the files of any bundle, without running them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from config_text import read_text

PACKAGE = "fsmis_components"
NOTE = "note: "  # begins what is worth knowing and no fault
SUFFIXES = (".json", ".yaml", ".yml")
_HASH = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_DEFAULT_HASH = "sha256"  # of MONAI 1.6 where large_files.yml names none


@dataclass(frozen=True)
class Bundle:
    """A bundle folder, its files read on demand."""

    root: Path

    def path(self, config: str) -> Path:
        """Return where ``config`` (such as ``train``) lies, in JSON if it is nowhere."""
        places = [self.root / "configs" / f"{config}{suffix}" for suffix in SUFFIXES]
        return next((place for place in places if place.is_file()), places[0])

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The content of ``metadata.json``."""
        return read_config(self.root / "configs" / "metadata.json")

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The content of every config by name, ``metadata`` left out."""
        paths = (p for p in sorted((self.root / "configs").glob("*")) if p.suffix in SUFFIXES)
        return {p.stem: read_config(p) for p in paths if p.stem != "metadata"}

    @property
    def is_ours(self) -> bool:
        """Whether a config names this project's package."""
        paths = (p for p in (self.root / "configs").glob("*") if p.suffix in SUFFIXES)
        return any(PACKAGE in path.read_text(errors="replace") for path in paths)

    def merged(self, *names: str) -> dict[str, Any]:
        """Return configs laid over each other: the later one wins per top-level key."""
        result: dict[str, Any] = {}
        for name in names:
            for key, value in self.configs[name].items():
                if key.startswith("+") and isinstance(value, dict):
                    result[key[1:]] = {**result.get(key[1:], {}), **value}
                else:
                    result[key.lstrip("+")] = value
        return result

    def base_of(self, config: str) -> str:
        """Return the whole config that ``config`` overlays, or its own name."""
        if config in ("train", "inference"):
            return config
        return "inference" if "inference" in config else "train"

    def large_files(self) -> list[dict[str, Any]]:
        """Return the entries of ``large_files.yml``: files that are downloaded later."""
        path = next(iter(sorted(self.root.glob("large_files.y*ml"))), None)
        content = read_text(path) if path is not None else None
        entries = content.get("large_files") if isinstance(content, dict) else None
        return [entry for entry in entries or [] if isinstance(entry, dict)]


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config in JSON or YAML.

    Raises:
        ValueError: it is no mapping, or out of bounds.
        json.JSONDecodeError: it is not JSON.
        yaml.YAMLError: it is not YAML.
    """
    content = read_text(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, not keys and values")
    return content


def check_readable(bundle: Bundle) -> list[str]:
    """Every config can be read and is none that a reader would choke on; asked before all else."""
    problems = []
    configs = [p for p in (bundle.root / "configs").glob("*") if p.suffix in SUFFIXES]
    for path in [*sorted(configs), *sorted(bundle.root.glob("large_files.y*ml"))]:
        name = path.relative_to(bundle.root)
        try:
            read_config(path)
        except json.JSONDecodeError as error:
            problems.append(f"{name} is not JSON ({error}): mend it")
        except yaml.YAMLError as error:
            problems.append(f"{name} is not YAML ({' '.join(str(error).split())}): mend it")
        except (ValueError, OSError) as error:
            problems.append(f"{name} cannot be read ({error}): mend it")
    return problems


def check_files(bundle: Bundle) -> list[str]:
    """The files without which MONAI does not take a folder for a bundle."""
    problems = [
        f"{name} is missing: add it"
        for name in ("LICENSE", "configs/metadata.json")
        if not (bundle.root / name).is_file()
    ]
    if not any(bundle.path(name).is_file() for name in ("train", "inference")):
        problems.append("configs/ has neither train nor inference in JSON or YAML: add one")
    later = {str(entry.get("path")) for entry in bundle.large_files()}
    weights = ("models/model.pt", "models/model.ts")
    if not any((bundle.root / name).is_file() or name in later for name in weights):
        problems.append("models/model.pt is missing: add it by training, or to large_files.yml")
    problems += [
        f"{path.relative_to(bundle.root)} is a link, which does not survive packing: copy the file"
        for path in sorted(bundle.root.rglob("*"))
        if path.is_symlink()
    ]
    for entry in bundle.large_files():
        kind = str(entry.get("hash_type") or _DEFAULT_HASH)
        value = entry.get("hash_val")
        if value and len(str(value)) != _HASH.get(kind, -1):
            problems.append(
                f"large_files.yml: hash_val of {entry.get('path')} is no {kind}: give hash_type "
                f"(without it MONAI takes {_DEFAULT_HASH}) and the whole hash"
            )
    return problems


def check_metadata(bundle: Bundle) -> list[str]:
    """metadata.json says what MONAI reads: package versions, then ``image`` and ``pred`` first."""
    problems = []
    if "optional_packages_version" in bundle.metadata:
        old, new = "optional_packages_version", "required_packages_version"
        both = new in bundle.metadata
        said = f"{old} overwrites {new}: drop it" if both else f"{NOTE}{old} is now called {new}"
        problems.append(said)
    data_format = bundle.metadata.get("network_data_format")
    if not data_format:
        return [*problems, "network_data_format is missing: describe inputs and outputs"]
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        first = next(iter(data_format.get(side, {})), None)
        if first != name:
            problems.append(f"the first of {side} is {first}, tools expect {name}: put it first")
    return problems


def check_run_ids(bundle: Bundle) -> list[str]:
    """A whole config has something to run under the id that the plain command looks for."""
    problems = []
    for name in ("train", "inference"):
        config = bundle.configs.get(name, {"run": None})
        if "run" in config:
            continue
        old = [run_id for run_id in ("training", "evaluating") if run_id in config]
        works = f" (`monai.bundle run {old[0]}` works)" if old else ""
        problems.append(
            f"{bundle.path(name).name} has no id run: `monai.bundle run` would fail{works}: add it"
        )
    return problems
