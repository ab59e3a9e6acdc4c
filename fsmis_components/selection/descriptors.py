"""Descriptors of a scan's slices, by which scans are compared; labels play no part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor

import fsmis_components
from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid, own_extent_grid
from fsmis_components.data.intensity import Normalisation, resolve_modality
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.encoding import EncodedSlices, FeatureCache, ScanEncoder
from fsmis_components.encoding.identity import computed_by, network_settings, weights_hash
from fsmis_components.support.support_pack import SupportPack

_SAME = 0.999  # cosine of each slice with itself, after rounding to half precision


@dataclass(frozen=True)
class ScanDescriptors:
    """A scan as a network sees it, without its image."""

    name: str  # of the scan
    grid: SliceGrid  # how it was cut into slices
    slice_spacing: float  # millimetres between slices
    descriptors: Tensor  # float16 (D, F), `slice_descriptors` of all slices
    # equal for the same scan, weights and preprocessing; empty for scans of a support
    key: str = ""

    @property
    def depth(self) -> int:
        """Number of slices D."""
        return self.descriptors.shape[0]

    @classmethod
    def of_support(cls, pack: SupportPack) -> list[ScanDescriptors]:
        """Those of the scans of a support."""
        # packs that trust no header keep no spacing; it is not used then
        return [
            cls(profile.name, pack.grid, profile.slice_spacing or 1.0, profile.descriptors)
            for profile in pack.profiles
        ]

    def same_as(self, other: ScanDescriptors) -> bool:
        """Whether both are one and the same scan."""
        if self.descriptors.shape != other.descriptors.shape:
            return False
        cosine = F.cosine_similarity(self.descriptors.float(), other.descriptors.float())
        return bool(cosine.min() > _SAME)


@dataclass(frozen=True)
class Preprocessing:
    """How scans are made ready for the network; the same for all that are compared."""

    grid: SliceGrid  # slice axis and working resolution
    normalisation: Normalisation  # the intensity rule
    # each scan fills `grid.spatial_size` pixels, so that none sets the scale of another; False: all
    # are brought to `grid`, as queries are to that of their support
    own_extent: bool

    @classmethod
    def of_first(cls, scans: Iterable[Case], geometry: Mapping[str, Any]) -> Preprocessing:
        """What the first scan that can be read sets where nothing is labelled.

        It says along which axis all are cut, and whether they are MR or CT. `geometry` is that of
        `build_support_pack`; its `fuse_planes` says nothing here: one axis is enough. That no scan
        can be read is a `DataError`.
        """
        options = {key: value for key, value in geometry.items() if key != "fuse_planes"}
        modality = options.pop("modality")
        troubles = []
        for scan in scans:
            try:
                volume = load_stack(scan.image)
            except DataError as error:
                troubles.append(str(error))
            else:
                normalisation = Normalisation(modality=resolve_modality(volume, modality))
                return cls(choose_slice_grid(volume, **options), normalisation, True)
        raise DataError(f"no scan that can be read is left to label: {'; '.join(troubles)}")

    @classmethod
    def of_support(cls, pack: SupportPack) -> Preprocessing:
        """That of an existing support."""
        return cls(pack.grid, pack.normalisation, False)


def load_stack(image: Path) -> Volume:
    """Read a scan; one that cannot be read, or has one slice only, is a `DataError`."""
    volume = load_image(image)
    if min(volume.shape) < 2:
        size = " x ".join(map(str, volume.shape))
        raise DataError(f"{image}: has one slice only ({size} voxels); take a volume.")
    return volume


class _Kept(NamedTuple):
    """What the cache keeps of a scan; plain values as JSON takes them."""

    descriptors: Tensor
    grid: dict[str, Any]
    slice_spacing: float


class Describer:
    """Describe scans by an encoder's network; what was described once is read from a cache."""

    def __init__(
        self, encoder: ScanEncoder, preprocessing: Preprocessing, cache: FeatureCache
    ) -> None:
        self.encoder = encoder
        self.preprocessing = preprocessing
        self.cache = cache
        self._facts = {
            "version": fsmis_components.__version__,
            "weights": weights_hash(encoder.network),
            "settings": network_settings(encoder.network),
            "preprocessing": asdict(preprocessing),
            **computed_by(encoder.network, encoder.amp),
        }

    def is_kept(self, image: Path) -> bool:
        """Whether a scan was described before."""
        return self._key(image) in self.cache

    def describe(self, case: Case) -> ScanDescriptors:
        """The descriptors of a scan; errors as `load_stack`."""
        key = self._key(case.image)
        if key in self.cache:
            batches = self.cache.read(key, _Kept, torch.device("cpu"))
        else:
            batches = self.cache.keep(key, self._described(case.image), case.name)
        ((_, _, kept),) = batches
        grid = SliceGrid.from_dict(kept.grid)
        return ScanDescriptors(case.name, grid, kept.slice_spacing, kept.descriptors, key)

    def _key(self, image: Path) -> str:
        """SHA-256 over all that the descriptors of a scan depend on; its name does not count."""
        facts = {**self._facts, "scan": file_hash(image)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _described(self, image: Path) -> Iterator[EncodedSlices]:
        volume, grid = load_stack(image), self.preprocessing.grid
        if self.preprocessing.own_extent:
            grid = own_extent_grid(volume, grid)
        view = SliceView(volume, grid)
        with eval_mode(self.encoder.network), torch.inference_mode():
            described = self.encoder.descriptors(view, self.preprocessing.normalisation).half()
        kept = _Kept(described, view.grid.to_dict(), view.native_spacing[0])
        yield EncodedSlices(0, view.depth, kept)
