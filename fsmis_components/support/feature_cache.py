"""Features of scans kept on disk, so that a scan is encoded once for several runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fsmis_components.data.atomic import atomic_write_bytes, sync_file
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.json_text import parse_json
from fsmis_components.data.one_writer import HeldLock, take_lock

logger = logging.getLogger(__name__)

# of slices start..stop-1 of a scan
Batch = tuple[int, int, Any]

_COMPLETE = "complete.json"  # written last: the sign that all batches of a scan are there
_METADATA_KEY = "fsmis_features"
_UNFINISHED = ".unfinished-"  # a folder, and beside it the lock of the process that fills it
_LOCK = ".lock"
_READ_SLICES = 32


class FeatureCache:
    """A folder of encoded scans, one folder per scan and a safetensors file per batch of slices.

    What comes back is equal bit for bit and in the same memory format, so masks do not depend on
    where features came from. A scan is found by what its features depend on (`feature_key`), not by
    its file name. No complete scan is ever removed: where the limit is reached, later scans are
    encoded again in each run. What killed runs left half-written is removed.

    Features show a patient about as well as the image does; keep the folder where the images are.
    Only the user may look into the folders of the scans.

    Args:
        folder: made on first use, for the user alone.
        gigabytes: what the folder may hold.

    Raises:
        DataError: the limit is not positive.
    """

    def __init__(self, folder: str | Path, gigabytes: float = 50.0) -> None:
        if not gigabytes > 0:
            raise DataError(f"features_gigabytes: expected a number above 0, got {gigabytes!r}.")
        self.folder = Path(folder)
        self.gigabytes = float(gigabytes)

    def __contains__(self, key: str) -> bool:
        """Whether all features of a scan are kept."""
        return (self.folder / key / _COMPLETE).is_file()

    def read(self, key: str, kind: type, device: torch.device) -> Iterator[Batch]:
        """The features of a scan, batch by batch.

        Args:
            key: from `feature_key`; it is in the cache.
            kind: the NamedTuple that the network's `encode` returns, see `features_kind`.
            device: where the tensors are wanted.

        Raises:
            DataError: a file is missing or damaged.
        """
        for start, stop in _spans(self.folder / key):
            path = _batch_file(self.folder / key, start, stop)
            try:
                with safe_open(str(path), framework="pt") as file:
                    facts = parse_json((file.metadata() or {})[_METADATA_KEY])
                    entries = {name: file.get_tensor(name) for name in facts["tensors"]}
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                raise _damaged(path.parent) from error
            tensors = {
                name: _restored(entries[name], last).to(device)
                for name, last in facts["tensors"].items()
            }
            plain = {name: tuple(value) for name, value in facts["plain"].items()}
            yield start, stop, kind(**tensors, **plain)

    def keep(self, key: str, batches: Iterable[Batch], title: str) -> Iterator[Batch]:
        """Pass batches on and keep them; they count only once all of them are there.

        Args:
            key: from `feature_key`.
            batches: all batches of a scan.
            title: what a warning calls the scan.
        """
        trouble, lock = "", None
        try:
            self._remove_leftovers()
            lock = self._begin()
        except OSError as error:
            trouble = str(error.strerror or error)
        unfinished = self.folder if lock is None else lock.path.with_suffix("")
        room = self.gigabytes * 1e9 - _held_bytes(self.folder)
        spans: list[tuple[int, int]] = []
        try:
            for start, stop, features in batches:
                if not trouble:
                    room -= _tensor_bytes(features)
                    trouble = "the limit of --features_gigabytes is reached" if room < 0 else ""
                if not trouble:
                    trouble = _write(_batch_file(unfinished, start, stop), features)
                spans.append((start, stop))
                yield start, stop, features
            trouble = trouble or self._complete(unfinished, key, spans)
            if trouble:
                logger.warning(
                    "%s: its features are not kept in %s (%s), so it is encoded again next time; "
                    "remove what is not needed there or raise the limit.",
                    title,
                    self.folder,
                    trouble,
                )
        finally:
            # also where the reader stopped early or was interrupted
            if lock is not None:
                shutil.rmtree(unfinished, ignore_errors=True)
                lock.release()

    def _remove_leftovers(self) -> None:
        """Make the folder, and remove what killed runs left of it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            left = path.with_suffix("")  # of the folder and of its lock
            lock = take_lock(left.with_suffix(_LOCK))
            if lock is not None:  # no process writes there any more
                shutil.rmtree(left, ignore_errors=True)
                lock.release()

    def _begin(self) -> HeldLock:
        """Lock a new name: two runs may encode the same scan at the same time."""
        while True:
            lock = take_lock(self.folder / f"{_UNFINISHED}{uuid.uuid4().hex[:12]}{_LOCK}")
            if lock is not None:  # else another process took it for a leftover
                return lock

    def _complete(self, unfinished: Path, key: str, spans: list[tuple[int, int]]) -> str:
        """Let the features of a scan count; returns why that was not possible."""
        if key in self:
            return ""
        try:
            content = json.dumps(spans).encode()
            atomic_write_bytes(unfinished / _COMPLETE, content, private=True)
            shutil.rmtree(self.folder / key, ignore_errors=True)  # a damaged former one
            unfinished.rename(self.folder / key)
        except OSError as error:
            # another run may have been first
            return "" if key in self else str(error.strerror or error)
        return ""


def feature_key(view: SliceView, weights: str, settings: dict[str, Any]) -> str:
    """SHA-256 over all that the features of a scan depend on.

    Args:
        view: the scan on the working grid: its voxels in the order of the slices, and their size.
        weights: `weights_hash` of the network.
        settings: of the network, the normalisation and the encoding, as JSON values.
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


def _spans(folder: Path) -> list[tuple[int, int]]:
    try:
        content = parse_json((folder / _COMPLETE).read_text(encoding="utf-8"))
        return [(int(start), int(stop)) for start, stop in content]
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> DataError:
    return DataError(
        f"{folder}: the kept features are damaged; remove this folder and give the same command "
        "again."
    )


def _write(path: Path, features: Any) -> str:
    """Write a batch; returns why it could not be written, which costs time but no result."""
    tensors: dict[str, Tensor] = {}
    last: dict[str, bool] = {}
    plain: dict[str, list[int]] = {}
    for name, entry in features._asdict().items():
        if torch.is_tensor(entry):
            value = entry.detach().cpu()
            # safetensors knows no memory format: channels-last is stored as what lies in memory
            last[name] = value.ndim == 4 and not value.is_contiguous() and _channels_last(value)
            tensors[name] = (value.permute(0, 2, 3, 1) if last[name] else value).contiguous()
        else:
            plain[name] = list(entry)
    facts = json.dumps({"tensors": last, "plain": plain})
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        save_file(tensors, path, metadata={_METADATA_KEY: facts})
        path.chmod(0o600)
        # the sign that all batches are there must not outlive a power cut that they do not
        sync_file(path)
    except (OSError, SafetensorError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def _channels_last(value: Tensor) -> bool:
    return value.is_contiguous(memory_format=torch.channels_last)


def _restored(value: Tensor, channels_last: bool) -> Tensor:
    return value.permute(0, 3, 1, 2) if channels_last else value


def _tensor_bytes(features: Any) -> int:
    return sum(entry.nbytes for entry in features if torch.is_tensor(entry))


def _held_bytes(folder: Path) -> int:
    held = 0
    for file in folder.glob("*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # of another run that has just ended
            held += file.stat().st_size
    return held
