"""A network of the contract, or a bundle folder, as a subject."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks import eval_mode
from torch import nn
from torch.nn.functional import one_hot

from fsmis_components.bundle import UNTRAINED, Bundle
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.data.weights import fill_network
from fsmis_components.encoding import EncodedSlices, ScanEncoder
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.evaluation.fold_training import finished_facts, fold_folder
from fsmis_components.evaluation.records import read_json
from fsmis_components.evaluation.subjects.base import Group, Subject
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
        weights = section_weights(sections, pack.sections)
        encoding = self.batch_size, self.amp, self._encoded, pack.weights_hash
        encoder, parts = ScanEncoder(self.network, *encoding), []
        with eval_mode(self.network), torch.inference_mode():
            for slices in encoder.scan(view, pack.normalisation):
                logits = segment_slices(encoder, slices, pack.state, weights)
                logits = view.to_native_logits(logits)
                winners = one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1)
                masks = logits[:, 1:] > 0 if overlap else winners[:, 1:].bool()
                parts.append(masks.cpu())
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


class BundleSubject(NetworkSubject):
    """The network and the volume inference that `configs/inference.json` of a bundle describes.

    Args:
        bundle_root: the bundle's folder.
        weights: "shipped"; "untrained": random ones; a file; or a folder that `benchmark.py train`
            filled, with weights per fold and, in Setting 2, per group of structures.
        knobs: values for knobs of the config; bundle, knob or weights that are not there are a
            `DataError`.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        weights: str | Path = "shipped",
        knobs: Mapping[str, Any] | None = None,
    ) -> None:
        given = Path(weights)
        folds = str(weights) not in ("shipped", UNTRAINED) and given.is_dir()
        described = Bundle(bundle_root, UNTRAINED if folds else weights, knobs=knobs)
        bundle, inferer = described.root.resolve().name, described.inferer
        slices = inferer.batch_size, inferer.amp
        super().__init__(described.network, bundle, described.geometry, inferer, *slices)
        self.knobs = described.knobs
        self.weights: str | Path = described.weights  # of the fold that is loaded
        self._folder = given if folds else None
        self._dropped: dict[str, Any] = {}  # slices that Setting 2 kept out of the training
        self._groups: list[Group] = [None]
        if folds:
            advice = "train folds with 'benchmark.py train', or name a weights file"
            training = read_json(given / "training.json", advice)
            if training["bundle"] != bundle:
                raise DataError(
                    f"{given}: holds weights of {training['bundle']}, not of {bundle}; name "
                    "another."
                )
            self.setting = training["setting"]
            self._groups = [None if group is None else tuple(group) for group in training["groups"]]
        else:
            self.name = f"{bundle} ({given.stem})"
            self.setting = "-" if str(weights) == UNTRAINED else "given"

    def groups(self) -> Sequence[Group]:
        """See `Subject.groups`."""
        return self._groups

    def load(self, fold: int, group: Group) -> None:
        """See `Subject.load`; no weights of the fold, or others than noted, are a `DataError`."""
        if self._folder is None:
            return
        folder = self._folder / fold_folder(fold, group)
        facts = finished_facts(folder)
        if facts is None:
            raise DataError(
                f"{folder}: the training of this fold is not finished; go on with 'benchmark.py "
                "train', or leave the fold out with --folds."
            )
        self.weights = folder / "model.pt"
        fill_network(self.network, self.weights)
        self.forget()
        self._dropped = {key: facts[key] for key in facts.keys() & {"dropped_slices"}}

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        return {
            "weights": weights_hash(self.network),
            "knobs": self.knobs,
            "geometry": self.geometry,
            "inference": {} if self.inferer is None else self.inferer.settings(self.network),
            **self._dropped,
        }


class _LastScan(dict[str, list[EncodedSlices]]):
    """Features of the scan that was encoded last, in memory, with those of its other planes."""

    def read(self, key: str, kind: type, device: torch.device) -> Iterator[EncodedSlices]:
        yield from self[key]

    def keep(
        self, key: str, batches: Iterable[EncodedSlices], title: str
    ) -> Iterator[EncodedSlices]:
        kept = []
        for batch in batches:
            kept.append(batch)
            yield batch
        for old in list(self)[: 1 - _PLANES]:
            del self[old]
        self[key] = kept
