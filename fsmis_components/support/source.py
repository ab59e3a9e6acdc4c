"""Where a network's support comes from: a folder, a pack, or the bundle's default pack."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.support.encode import build_support_pack
from fsmis_components.support.support_pack import SupportPack, weights_hash
from fsmis_components.support.support_set import LabelledSlices, Wanted, load_support_set


class SupportSource:
    """Resolve the support for a network, lazily and once per network and weights.

    The order is: `support_dir`, `support_pack`, `default_pack`. Nothing is read before `resolve`,
    so that a config can be parsed and checked without data.

    Args:
        support_dir: folder of labelled scans.
        support_pack: file written by `save_support_pack`.
        default_pack: the pack that the bundle ships.
        save_support_pack: file to which the resolved pack is written.
        support_ids: which scans of `support_dir` to use; one id, several, or text "1,2".
        structures: label values or names, see `load_support_set`.
        num_shots: use only the first so many scans.
        labelled_slices: "all", or "sections": three of each structure and scan, which makes a small
            pack.
        spatial_size: see `build_support_pack`.
        modality: see `build_support_pack`.
        slice_axis: see `build_support_pack`.
        ignore_spacing: see `build_support_pack`.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
    """

    def __init__(
        self,
        support_dir: str | Path | None = None,
        support_pack: str | Path | None = None,
        default_pack: str | Path | None = None,
        save_support_pack: str | Path | None = None,
        *,
        support_ids: Sequence[str | int] | str | int | None = None,
        structures: Wanted = None,
        num_shots: int | None = None,
        labelled_slices: LabelledSlices = "all",
        spatial_size: int = 256,
        modality: str = "auto",
        slice_axis: str | int = "auto",
        ignore_spacing: bool = False,
        batch_size: int = 8,
        amp: bool = False,
    ) -> None:
        self.support_dir = support_dir or None
        self.support_pack = support_pack or None
        self.default_pack = default_pack or None
        self.save_support_pack = save_support_pack or None
        self.support_ids = support_ids
        self.structures = structures
        self.num_shots = num_shots
        if labelled_slices not in get_args(LabelledSlices):
            raise DataError(f"labelled_slices: expected all or sections, got {labelled_slices!r}.")
        self.labelled_slices = labelled_slices
        self.spatial_size = spatial_size
        self.modality = modality
        self.slice_axis = slice_axis
        self.ignore_spacing = ignore_spacing
        self.batch_size = batch_size
        self.amp = amp
        self._pack: SupportPack | None = None
        self._network: weakref.ref[nn.Module] | None = None
        self._hash = ""

    def resolve(self, network: nn.Module) -> SupportPack:
        """Return the pack for a network.

        Raises:
            DataError: no support at all, an unusable one, or a pack of another network.
        """
        if self.support_dir and self.support_pack:
            raise DataError("both --support_dir and --support_pack are given; give one of the two.")
        current = weights_hash(network)
        same = self._network is not None and self._network() is network and self._hash == current
        if self._pack is None or not same:
            pack = self._make(network, current)
            if self.save_support_pack:
                pack = pack.renamed(str(pack.save(self.save_support_pack)))
            self._pack, self._network, self._hash = pack, weakref.ref(network), current
        return self._pack

    def _make(self, network: nn.Module, current: str) -> SupportPack:
        if self.support_dir:
            support_set = load_support_set(
                self.support_dir,
                support_ids=self.support_ids,
                structures=self.structures,
                num_shots=self.num_shots,
            )
            pack = build_support_pack(
                network,
                replace(support_set, slices=self.labelled_slices),
                spatial_size=self.spatial_size,
                modality=self.modality,
                slice_axis=self.slice_axis,
                ignore_spacing=self.ignore_spacing,
                batch_size=self.batch_size,
                amp=self.amp,
            )
            return pack.renamed(str(self.support_dir))
        if self.support_ids is not None or self.num_shots is not None:
            raise DataError(
                "--support_ids and --num_shots choose among labelled scans; give their folder with "
                "--support_dir."
            )
        path = self.support_pack or self.default_pack
        if path and (self.support_pack or Path(path).is_file()):
            pack = SupportPack.load(path)
            pack.check_fits(network, current)
            return pack.selected(self.structures)
        raise DataError(
            "no support: give a folder of labelled scans with --support_dir, or a pack with "
            "--support_pack (the bundle has no default pack)."
        )
