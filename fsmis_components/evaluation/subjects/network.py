"""A network of the contract as a subject: slices are encoded once, for every protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from monai.networks import eval_mode
from torch import nn
from torch.nn.functional import one_hot

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding import EncodedSlices, ScanEncoder
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.inferers.encoded_slices import segment_slices
from fsmis_components.inferers.matching import section_weights
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.support.encode import build_support_pack
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportSet

_PLANES = 3


class NetworkSubject(Subject):
    """Segment by a network, its support pack and the product's own volume inference.

    Args:
        network: a network of the contract; left in the mode in which it came.
        name: what tables call it.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing`, `fuse_planes` of
            `build_support_pack`.
        inferer: whole-volume inference; its support is replaced by the benchmark's.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str = "network",
        geometry: dict[str, Any] | None = None,
        inferer: VolumeInferer | None = None,
        batch_size: int = 8,
        amp: bool = False,
    ) -> None:
        self.network = network
        self.name = name
        self.geometry = geometry or {}
        self.batch_size = batch_size
        self.amp = amp
        self.inferer = inferer
        self._packs: list[tuple[SupportSet, SupportPack]] = []
        self._encoded = _LastScan()

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`."""
        pack = self.pack(support)
        inferer = copy(self.inferer or VolumeInferer(pack, self.batch_size, self.amp))
        inferer.cache = self._encoded
        return inferer.segment_volume(query_image, self.network, pack).label

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """See `Subject.predict_told`: the sections say which support slices answer."""
        pack = self.pack(support)
        view = SliceView(query_image, pack.grid)
        if pack.grid.slice_axis != grid.slice_axis:
            raise ValueError(
                f"NetworkSubject: expected slices along axis {pack.grid.slice_axis}, got "
                f"{grid.slice_axis}"
            )
        weights = section_weights(sections, pack.sections)
        encoder = ScanEncoder(
            self.network, self.batch_size, self.amp, self._encoded, pack.weights_hash
        )
        parts = []
        with eval_mode(self.network), torch.inference_mode():
            for slices in encoder.scan(view, pack.normalisation):
                logits = segment_slices(encoder, slices, pack.state, weights)
                logits = view.to_native_logits(logits)
                if overlap:
                    parts.append((logits[:, 1:] > 0).cpu())
                else:
                    winner = logits.argmax(1)
                    parts.append(
                        one_hot(winner, logits.shape[1]).movedim(-1, 1)[:, 1:].bool().cpu()
                    )
        return (torch.cat(parts) & (sections >= 0)[..., None, None]).numpy()

    def pack(self, support: SupportSet) -> SupportPack:
        """The encoding of a support; the last two are kept."""
        for known, pack in self._packs:
            if known is support:
                return pack
        pack = build_support_pack(
            self.network, support, **self.geometry, batch_size=self.batch_size, amp=self.amp
        )
        self._packs = [*self._packs[-1:], (support, pack)]
        return pack

    def forget(self) -> None:
        """Drop what was encoded, because the network has changed."""
        self._packs, self._encoded = [], _LastScan()


class _LastScan:
    """Features of the scan that was encoded last, in memory, with those of its other planes."""

    def __init__(self) -> None:
        self._scans: dict[str, list[EncodedSlices]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._scans

    def read(self, key: str, kind: type, device: torch.device) -> Iterator[EncodedSlices]:
        yield from self._scans[key]

    def keep(
        self, key: str, batches: Iterable[EncodedSlices], title: str
    ) -> Iterator[EncodedSlices]:
        kept = []
        for batch in batches:
            kept.append(batch)
            yield batch
        last = list(self._scans.items())[1 - _PLANES :]
        self._scans = {**dict(last), key: kept}
