"""What is computed of scans, kept on disk so that a scan is encoded once for several runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fsmis_components.data.atomic import atomic_write_bytes
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.safe_text import parse_json

logger = logging.getLogger(__name__)

_COMPLETE = "complete.json"  # written last: the sign that all batches of a scan are there
_METADATA_KEY = "fsmis_features"
_READ_SLICES = 32


class EncodedSlices(NamedTuple):
    """What a network makes of the slices start..stop-1 of a scan: a NamedTuple of its own."""

    start: int
    stop: int
    features: Any


class FeatureStore(Protocol):
    """Where features of scans are kept, on disk or in memory; see `FeatureCache`."""

    def __contains__(self, key: str) -> bool: ...

    def read(self, key: str, kind: type, device: torch.device) -> Iterator[EncodedSlices]:
        """The features of a scan that is kept."""

    def keep(
        self, key: str, batches: Iterable[EncodedSlices], title: str
    ) -> Iterator[EncodedSlices]:
        """Pass the batches of a scan on and keep them."""


class FeatureCache:
    """A folder of encoded scans, one folder per scan and a safetensors file per batch of slices.

    What comes back is equal bit for bit and in the same memory format, so masks do not depend on
    where features came from. A scan is found by its `feature_key`, not by its file name. No
    complete scan is ever removed: where the limit (`gigabytes`) is reached, later scans are encoded
    again in each run. What a run left half-way is written again by the next one; two runs at once
    write the same.

    Features show a patient about as well as the image does; keep the folder where the images are.
    It is made on first use, and only the user may look into it.
    """

    def __init__(self, folder: str | Path, gigabytes: float = 50.0) -> None:
        if not gigabytes > 0:
            raise DataError(f"features_gigabytes: expected a number above 0, got {gigabytes!r}.")
        self.folder = Path(folder)
        self.gigabytes = float(gigabytes)

    def __contains__(self, key: str) -> bool:
        return (self.folder / key / _COMPLETE).is_file()

    def read(self, key: str, kind: type, device: torch.device) -> Iterator[EncodedSlices]:
        """The features of a scan that is in the cache, batch by batch, on a device.

        `kind` is the NamedTuple that was kept. A missing or damaged file is a `DataError`.
        """
        folder = self.folder / key
        try:
            for start, stop in parse_json((folder / _COMPLETE).read_text(encoding="utf-8")):
                features = _read(_batch_file(folder, start, stop), kind, device)
                yield EncodedSlices(start, stop, features)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}: the kept features are damaged; remove this folder and give the same "
                "command again."
            ) from error

    def keep(
        self, key: str, batches: Iterable[EncodedSlices], title: str
    ) -> Iterator[EncodedSlices]:
        """Pass all batches of a scan on and keep them; they count once all of them are there.

        Where that is not possible, a warning says why, in which `title` stands for the scan.
        """
        folder, spans = self.folder / key, []
        trouble: OSError | None = None
        room = self.gigabytes * 1e9 - _held_bytes(self.folder)
        for start, stop, features in batches:
            room -= sum(entry.nbytes for entry in features if torch.is_tensor(entry))
            spans.append((start, stop))
            try:
                if trouble is None and room < 0:
                    raise OSError("the limit of --features_gigabytes is reached")
                if trouble is None:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    folder.mkdir(mode=0o700, exist_ok=True)
                    _write(_batch_file(folder, start, stop), features)
            except OSError as error:
                trouble = error
            yield EncodedSlices(start, stop, features)
        try:
            if trouble is None:
                if not all(_batch_file(folder, *span).is_file() for span in spans):
                    raise OSError("another run had no room for them and removed some")
                atomic_write_bytes(folder / _COMPLETE, json.dumps(spans).encode(), private=True)
        except OSError as error:
            trouble = error
        if trouble is not None and key not in self:
            shutil.rmtree(folder, ignore_errors=True)
            logger.warning(
                "%s: its features are not kept in %s (%s), so it is encoded again next time; "
                "remove what is not needed there or raise the limit.",
                title,
                self.folder,
                trouble.strerror or trouble,
            )


def feature_key(view: SliceView, weights: str, settings: dict[str, Any]) -> str:
    """SHA-256 over all that the features of a scan on the working grid depend on.

    `weights` is the network's `weights_hash`; the settings are JSON values.
    """
    facts = {
        "weights": weights,
        "settings": settings,
        "native_size": view.native_size,
        "working_size": view.working_size,
        "depth": view.depth,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for start in range(0, view.depth, _READ_SLICES):
        part = view.native(start, min(start + _READ_SLICES, view.depth))
        digest.update(str(part.dtype).encode())
        digest.update(part.tobytes())
    return digest.hexdigest()


def features_kind(network: nn.Module) -> type:
    """The NamedTuple that the network's `encode` is annotated to return."""
    kind: type = get_type_hints(type(network).encode)["return"]  # type: ignore[attr-defined]
    return kind


def _batch_file(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:05d}-{stop:05d}.safetensors"


def _write(path: Path, features: Any) -> None:
    tensors: dict[str, Tensor] = {}
    last: dict[str, bool] = {}
    plain: dict[str, Any] = {}
    for name, entry in features._asdict().items():
        if torch.is_tensor(entry):
            value = entry.detach().cpu()
            # safetensors knows no memory format: channels-last is stored as what lies in memory
            last[name] = (
                not value.is_contiguous()
                and value.ndim == 4
                and value.is_contiguous(memory_format=torch.channels_last)
            )
            tensors[name] = (value.permute(0, 2, 3, 1) if last[name] else value).contiguous()
        else:
            plain[name] = entry
    facts = json.dumps({"tensors": last, "plain": plain})
    atomic_write_bytes(path, save(tensors, {_METADATA_KEY: facts}), private=True)


def _read(path: Path, kind: type, device: torch.device) -> Any:
    with safe_open(str(path), framework="pt") as file:
        facts = parse_json((file.metadata() or {})[_METADATA_KEY])
        entries = {name: file.get_tensor(name) for name in facts["tensors"]}
    tensors = {
        name: (entries[name].permute(0, 3, 1, 2) if last else entries[name]).to(device)
        for name, last in facts["tensors"].items()
    }
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in facts["plain"].items()
    }
    return kind(**tensors, **plain)


def _held_bytes(folder: Path) -> int:
    held = 0
    for file in folder.glob("*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # of another run that has just ended
            held += file.stat().st_size
    return held
