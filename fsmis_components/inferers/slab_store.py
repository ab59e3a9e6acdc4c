"""Encoded slabs of a scan, kept to be read several times: in memory up to a limit, else on disk."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor

from fsmis_components.inferers.slabs import Slab

# 128 slices of ALPNet or CoW at 256 x 256 pixels (2 MiB each), 42 of IPSNet (6 MiB), so that usual
# scans never touch the disk. Features and margins are kept at once: together they hold an eighth
# of the 4 GiB that a scan of 1,000 slices may need in all.
MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _OnDisk:
    """A slab whose features, of a type `kind`, are `size` bytes of a file from `offset` on."""

    start: int
    stop: int
    kind: type
    file: IO[bytes]
    offset: int
    size: int


class SlabStore:
    """The encoded slabs of one scan, to be iterated in order any number of times.

    A scan is encoded once, but its features are wanted twice: to find where each slice lies in the
    support, and to segment it. Slabs stay as they are, on their device, until the limit is reached;
    later ones go to one unnamed temporary file (the system's folder for such files, `TMPDIR`),
    which the system removes even if the process is killed. What comes back from there is equal bit
    for bit, in the same memory format and on the same device.

    Args:
        memory_bytes: tensors that stay in memory, in bytes.
        folder: for the temporary file; None: the system's.

    Example:
        >>> from fsmis_components.networks.few_shot_network import SliceFeatures
        >>> with SlabStore() as store:
        ...     store.add(Slab(0, 2, SliceFeatures(torch.ones(2, 4, 8, 8), (32, 32))))
        ...     [(slab.start, slab.stop) for slab in store]
        [(0, 2)]
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES, folder: str | Path | None = None) -> None:
        self.memory_bytes = memory_bytes
        self.folder = folder
        self._slabs: list[Slab | _OnDisk] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._open = False

    def __enter__(self) -> SlabStore:
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        self._slabs.clear()
        self._held_bytes = 0
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __len__(self) -> int:
        """Number of slabs."""
        return len(self._slabs)

    def __iter__(self) -> Iterator[Slab]:
        """The slabs in the order in which they came."""
        self._check_open()
        for slab in tuple(self._slabs):
            yield read_slab(slab) if isinstance(slab, _OnDisk) else slab

    def add(self, slab: Slab) -> None:
        """Keep a slab.

        Args:
            slab: its features are a NamedTuple of tensors and plain values.

        Raises:
            OSError: the disk is full.
        """
        self._check_open()
        features = type(slab.features)(*(_without_rest(entry) for entry in slab.features))
        size = sum(entry.nbytes for entry in features if torch.is_tensor(entry))
        # once on disk, the rest follows: slabs are equally large but for the last
        if self._file is None and self._held_bytes + size <= self.memory_bytes:
            self._held_bytes += size
            self._slabs.append(Slab(slab.start, slab.stop, features))
        else:
            self._slabs.append(self._write(slab.start, slab.stop, features))

    def _write(self, start: int, stop: int, features: Any) -> _OnDisk:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (see __exit__)
        packed = io.BytesIO()
        # into memory first: PyTorch's writer would turn the OSError of a full disk into another
        torch.save(tuple(features), packed)
        offset = self._file.seek(0, io.SEEK_END)
        size = self._file.write(packed.getbuffer())
        self._file.flush()
        return _OnDisk(start, stop, type(features), self._file, offset, size)

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("SlabStore: expected use inside its with block, got it outside")


def read_slab(slab: _OnDisk) -> Slab:
    """The slab that lies on disk."""
    slab.file.seek(slab.offset)
    packed = io.BytesIO(slab.file.read(slab.size))
    return Slab(slab.start, slab.stop, slab.kind(*torch.load(packed, weights_only=True)))


def _without_rest(entry: Any) -> Any:
    """A part of a larger tensor by itself, so that it neither holds nor writes the rest."""
    if not isinstance(entry, Tensor) or entry.untyped_storage().nbytes() <= entry.nbytes:
        return entry
    return entry.clone()
