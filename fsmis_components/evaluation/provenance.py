"""What a table depends on: hashes of code, data and weights, versions, machine and threads."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import monai
import numpy as np
import scipy
import torch

import fsmis_components
from fsmis_components.data.cases import Case
from fsmis_components.data.file_hash import file_hash


def code_hash() -> str:
    """SHA-256 over the Python files of the installed package, by their relative paths."""
    root = Path(fsmis_components.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def case_hash(case: Case) -> str:
    """SHA-256 of a case's image and label."""
    parts = [file_hash(path) for path in (case.image, case.label) if path is not None]
    return joined_hash({case.name: "".join(parts)})


def joined_hash(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    lines: Iterable[str] = (f"{name} {value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def surroundings(device: torch.device | None = None) -> dict[str, object]:
    """Versions, processor and threads: a table is bit-equal where these are.

    Args:
        device: where the work was done; None: on the GPU, if there is one.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "machine": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "versions": {
            "fsmis_components": fsmis_components.__version__,
            "torch": torch.__version__,
            "monai": monai.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "python": platform.python_version(),
        },
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
