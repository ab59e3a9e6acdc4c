"""A network of the contract as a subject: slices are encoded once, for every protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.inferers.matching import section_weights
from fsmis_components.inferers.slabs import Slab, encode_slabs, segment_slab
from fsmis_components.inferers.slice_order import decided_view
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.support.encode import frozen
from fsmis_components.support.planes import build_planes
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportSet


class NetworkSubject(Subject):
    """Segment by a network, its support pack and the product's own volume inference.

    Args:
        network: a network of the contract; left in the mode in which it came.
        name: what tables call it.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing`, `fuse_planes` of
            `build_planes`.
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
        self._encoded: tuple[Volume, SliceGrid, Normalisation, StorageOrder, list[Slab]] | None
        self._encoded = None

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`."""
        pack = self.pack(support)
        inferer = self.inferer or VolumeInferer(pack, self.batch_size, self.amp)
        with frozen(self.network), torch.inference_mode():
            view = decided_view(
                self.network, query_image, pack, batch_size=self.batch_size, amp=self.amp
            )
            slabs = self._slabs(query_image, view, pack)
            return inferer.segment_slabs(slabs, view, pack, self.network).label

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
        parts = []
        with frozen(self.network), torch.inference_mode():
            for slab in self._slabs(query_image, view, pack):
                logits = segment_slab(self.network, slab, pack.state, weights, amp=self.amp)
                logits = view.to_native_logits(logits)
                if overlap:
                    masks = logits[:, 1:] > 0
                else:
                    winner = logits.argmax(1, keepdim=True)
                    masks = (
                        winner
                        == torch.arange(1, logits.shape[1], device=winner.device)[
                            None, :, None, None
                        ]
                    )
                parts.append(masks.cpu())
        return (torch.cat(parts) & (sections >= 0)[..., None, None]).numpy()

    def pack(self, support: SupportSet) -> SupportPack:
        """The encoding of a support; the last two are kept."""
        for known, pack in self._packs:
            if known is support:
                return pack
        pack = build_planes(
            self.network, support, **self.geometry, batch_size=self.batch_size, amp=self.amp
        )
        self._packs = [*self._packs[-1:], (support, pack)]
        return pack

    def forget(self) -> None:
        """Drop what was encoded, because the network has changed."""
        self._packs, self._encoded = [], None

    def _slabs(self, query: Volume, view: SliceView, pack: SupportPack) -> list[Slab]:
        known, facts = self._encoded, (pack.grid, pack.normalisation, view.order)
        if known is None or known[0] is not query or known[1:4] != facts:
            slabs = encode_slabs(
                self.network, query, view, pack, batch_size=self.batch_size, amp=self.amp
            )
            self._encoded = (query, *facts, list(slabs))
        return self._encoded[4]  # type: ignore[index]
