"""Encoded slices of a query: kept for several passes, segmented, their margins averaged."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.geometry import SliceView
from fsmis_components.encoding import EncodedSlices, ScanEncoder
from fsmis_components.encoding.scan_encoder import chosen_features
from fsmis_components.layers.support_state import SupportState, move_state, select_sections

# query slices of one call: few, because support slices that any of them asks for serve all
_TOGETHER = 4
_LOWEST = -20.0  # the scale of margins: no plane alone rules a structure out
ABSENT = -40.0  # margin of a structure that is not there, twice the scale of cosines
# 128 slices of ALPNet or CoW at 256 x 256 pixels (2 MiB each), 42 of IPSNet (6 MiB), so that usual
# scans never touch the disk. Features and margins are kept at once: together they hold an eighth
# of the 4 GiB that a scan of 1,000 slices may need in all.
MEMORY_BYTES = 256 * 2**20


class SliceStore:
    """The encoded slices of one scan, to be iterated in order any number of times.

    Batches stay as they are until `memory_bytes` of tensors are held; later ones go to an unnamed
    temporary file (in `TMPDIR`), which goes with this object or the process. What comes back from
    there is equal bit for bit, in the same memory format and on the same device.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._left = memory_bytes
        self._held: list[EncodedSlices] = []
        self._on_disk: list[tuple[int, int]] = []  # offset and length in the file, which lies there
        self._file: IO[bytes]
        self._kind: type  # of the features there

    def __iter__(self) -> Iterator[EncodedSlices]:
        yield from self._held
        for offset, size in self._on_disk:
            self._file.seek(offset)
            start, stop, features = torch.load(io.BytesIO(self._file.read(size)), weights_only=True)
            yield EncodedSlices(start, stop, self._kind(*features))

    def add(self, slices: EncodedSlices) -> None:
        """Keep a batch; a full disk is an OSError."""
        features = type(slices.features)(*map(_without_rest, slices.features))
        slices = slices._replace(features=features)
        self._left -= sum(entry.nbytes for entry in features if torch.is_tensor(entry))
        # once on disk, the rest follows: batches are equally large but for the last
        if self._left >= 0:
            self._held.append(slices)
            return
        if not self._on_disk:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
            self._kind = type(features)
        packed = io.BytesIO()
        # into memory first: PyTorch's writer would turn the OSError of a full disk into another
        torch.save((slices.start, slices.stop, tuple(features)), packed)
        offset = self._file.seek(0, io.SEEK_END)
        self._on_disk.append((offset, self._file.write(packed.getbuffer())))
        self._file.flush()


def _without_rest(entry: Any) -> Any:
    """A part of a larger tensor by itself, so that it neither holds nor writes the rest."""
    if not isinstance(entry, Tensor) or entry.untyped_storage().nbytes() <= entry.nbytes:
        return entry
    return entry.clone()


def segment_slices(
    encoder: ScanEncoder,
    slices: EncodedSlices,
    state: SupportState,
    weights: Tensor,
    areas: Tensor | None = None,
) -> Tensor:
    """Logits of one batch of encoded slices at the working resolution.

    Args:
        encoder: of the network that encoded them, in evaluation mode.
        slices: of one batch.
        state: the support state, on any device.
        weights: section weights (D, N, S) of the whole volume.
        areas: bool (D, H, W), the pixels that are asked for; None: all. A network whose answer at
            a place depends on that place alone is shown only the rectangle around them; outside,
            structures have the margin ABSENT.

    Returns:
        float32 logits (stop - start, 1 + N, H, W) on the network's device.
    """
    network, device = encoder.network, encoder.device
    state = move_state(state, device)
    if not getattr(network, "pointwise", False):
        areas = None
    parts = []
    for start in range(slices.start, slices.stop, _TOGETHER):
        stop = min(start + _TOGETHER, slices.stop)
        chosen = range(start - slices.start, stop - slices.start)
        features = chosen_features(slices.features, chosen)
        asked, asked_weights = state, weights[start:stop]
        # sections that none of these slices asks for cost time and change nothing
        used = asked_weights.flatten(0, 1).any(0).nonzero().flatten()
        if 0 < len(used) < asked_weights.shape[-1]:
            asked = select_sections(state, used.to(device))
            asked_weights = asked_weights[..., used]
        segment = partial(_segment, encoder, state=asked, weights=asked_weights.to(device))
        if areas is None:
            parts.append(segment(features))
            continue
        channels = 1 + asked_weights.shape[1]
        whole = torch.full((len(chosen), channels, *features.image_size), ABSENT, device=device)
        whole[:, 0] = 0.0  # the margin of the background
        area = areas[start:stop].any(0)
        if area.any():
            stride: int = network.stride  # type: ignore[assignment]
            sides = [marked_side(area.any(1 - axis), stride) for axis in (0, 1)]
            rows, columns = (slice(s.start // stride, -(-s.stop // stride)) for s in sides)
            size = tuple(s.stop - s.start for s in sides)
            shown = features._replace(high=features.high[..., rows, columns], image_size=size)
            whole[..., sides[0], sides[1]] = segment(shown)
        parts.append(whole)
    return torch.cat(parts)


def _segment(encoder: ScanEncoder, features: Any, state: SupportState, weights: Tensor) -> Tensor:
    with torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=encoder.amp):
        logits = encoder.network.segment(features, state, weights)  # type: ignore[operator]
    return logits.float()


def marked_side(marked: Tensor, stride: int = 1) -> slice:
    """From the first to the last of the rows or columns that are marked, in whole strides."""
    places = torch.nonzero(marked).flatten()
    first, last = int(places[0]), int(places[-1])
    return slice(first // stride * stride, min(len(marked), -(-(last + 1) // stride) * stride))


class PlaneMargins:
    """The sum of margins (N, X, Y, Z) over planes beside the one that is assembled.

    N is `num_structures`, X, Y, Z the shape of the scan as it is stored. It lies in an unnamed
    temporary file, as half precision: 20 structures of a brain are 200 MB, which the system keeps
    in memory where it can; a full disk is an OSError.
    """

    def __init__(self, num_structures: int, shape: Sequence[int]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (removed with this object)
        size = (num_structures, *shape)
        self._sum = np.memmap(self._file, np.float16, "w+", shape=size)
        self._planes = 1

    def add(self, view: SliceView, start: int, stop: int, margins: Tensor) -> None:
        """Add margins (n, N, h, w) of slices start..stop-1 of a plane; start 0 begins one.

        They are float32 at the scan's own resolution.
        """
        self._planes += start == 0
        for total, added in zip(self._sum, margins.clamp_min(_LOWEST).unbind(1), strict=True):
            view.stacked(total)[start:stop] += added.cpu().numpy().astype(np.float16)

    def fused(self, view: SliceView, start: int, stop: int, margins: Tensor) -> Tensor:
        """The mean over all planes in slices start..stop-1 of another one that says `margins`."""
        others = np.stack([view.stacked(total)[start:stop] for total in self._sum], 1)
        total = torch.from_numpy(others.astype(np.float32)).to(margins)
        return (margins.clamp_min(_LOWEST) + total) / self._planes
