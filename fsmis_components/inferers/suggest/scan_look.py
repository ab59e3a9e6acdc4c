"""What a scan looks like along z, so that it can be compared with others; labels play no part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid, own_extent_grid
from fsmis_components.data.intensity import Normalisation, resolve_modality
from fsmis_components.data.volumes import Volume
from fsmis_components.support.encode import encode_scan, frozen
from fsmis_components.support.slice_descriptors import slice_descriptors
from fsmis_components.support.support_pack import SupportPack

_SAME = 0.999  # cosine of each slice with itself, after rounding to half precision


@dataclass(frozen=True)
class ScanLook:
    """A scan as seen by a network, without its image.

    Attributes:
        name: of the scan.
        grid: how it was cut into slices.
        slice_spacing: millimetres between slices.
        descriptors: float16 (D, F), `slice_descriptors` of all slices.
    """

    name: str
    grid: SliceGrid
    slice_spacing: float
    descriptors: Tensor

    @property
    def depth(self) -> int:
        """Number of slices D."""
        return self.descriptors.shape[0]

    @classmethod
    def of_support(cls, pack: SupportPack) -> list[ScanLook]:
        """The looks of the scans of a support."""
        # packs that trust no header keep no spacing; it is not used then
        return [
            cls(profile.name, pack.grid, profile.slice_spacing or 1.0, profile.descriptors)
            for profile in pack.profiles
        ]

    def same_as(self, other: ScanLook) -> bool:
        """Whether both are one and the same scan."""
        if self.descriptors.shape != other.descriptors.shape:
            return False
        cosine = F.cosine_similarity(self.descriptors.float(), other.descriptors.float())
        return bool(cosine.min() > _SAME)


@dataclass(frozen=True)
class LookRule:
    """How scans are made ready for the network; the same for all that are compared.

    Attributes:
        grid: slice axis and working resolution.
        normalisation: the intensity rule.
        own_extent: each scan fills `grid.spatial_size` pixels, so that none sets the scale of
            another; False: all are brought to `grid`, as queries are to that of their support.
    """

    grid: SliceGrid
    normalisation: Normalisation
    own_extent: bool

    @classmethod
    def of_first(cls, first: Volume, geometry: Mapping[str, Any]) -> LookRule:
        """The rule that a scan sets where nothing is labelled.

        Args:
            first: the scan; says along which axis all are cut, and whether they are MR or CT.
            geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing` as in
                `build_support_pack`; `fuse_planes` says nothing here: looks are cut along one axis.
        """
        own = {key: value for key, value in geometry.items() if key != "fuse_planes"}
        modality = resolve_modality(first, own.pop("modality"))
        return cls(choose_slice_grid(first, **own), Normalisation(modality=modality), True)

    @classmethod
    def of_support(cls, pack: SupportPack) -> LookRule:
        """The rule of an existing support."""
        return cls(pack.grid, pack.normalisation, False)

    def grid_of(self, volume: Volume) -> SliceGrid:
        """The grid of a scan."""
        return own_extent_grid(volume, self.grid) if self.own_extent else self.grid

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "grid": self.grid.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "own_extent": self.own_extent,
        }


def look_at(
    network: nn.Module,
    volume: Volume,
    name: str,
    rule: LookRule,
    *,
    batch_size: int = 8,
    amp: bool = False,
) -> ScanLook:
    """Encode a scan slab by slab and keep what it looks like.

    Args:
        network: any network of the contract; left in the mode in which it came.
        volume: the scan.
        name: what tables call it.
        rule: how it is cut and normalised.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
    """
    view = SliceView(volume, rule.grid_of(volume))
    with frozen(network), torch.inference_mode():
        encoded = encode_scan(
            network, volume, view, rule.normalisation, batch_size=batch_size, amp=amp
        )
        parts = [slice_descriptors(features.high).cpu() for _, _, features in encoded]
    return ScanLook(name, view.grid, view.native_spacing[0], torch.cat(parts).half())
