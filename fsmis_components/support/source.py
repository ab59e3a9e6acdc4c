"""Where a network's support comes from: a folder or a pack, and masks that were corrected."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np
import torch
from monai.networks import eval_mode
from torch import nn

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.errors import DataError
from fsmis_components.encoding import FeatureStore, ScanEncoder
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.layers.support_state import SupportState, move_state
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.corrections import Correction, Corrections
from fsmis_components.support.encode import build_support_pack, with_mirrored
from fsmis_components.support.join_packs import join_packs
from fsmis_components.support.requested import RequestedSupport, ResolvedSupport
from fsmis_components.support.support_pack import SupportPack, rebuild_sentence
from fsmis_components.support.support_request import SupportRequest
from fsmis_components.support.support_set import (
    LabelledSlices,
    SupportScan,
    SupportSet,
    Wanted,
    load_support_set,
)

_SIDES = (64, 96)  # pixels; a network takes slices of any size
# given from above, because it segments volumes
Tester = Callable[[ScanEncoder, SupportSet, SupportPack], Calibration]


class SupportSource:
    """Resolve the support for a network, lazily and once per network and weights.

    The order is: labelled volumes that a request names, `support_dir`, `support_pack`,
    `default_pack`; scans with corrected masks join whichever of the last three it is. Nothing is
    read before `resolve`, so that a config can be parsed and checked without data. Parallel workers
    may share it.

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
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        corrections: scans whose masks were corrected; they join the support.
        self_test: a support that is built from a folder is tested, by who resolves it.
        cache: where features of scans are kept, so that no scan is encoded twice.
        geometry: arguments of `frame_of`; `fuse_planes` False also leaves out the planes of a pack.
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
        batch_size: int = 8,
        amp: bool = False,
        corrections: Corrections | None = None,
        cache: FeatureStore | None = None,
        self_test: bool = False,
        **geometry: Any,
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
        self.geometry = geometry
        self.encoding: dict[str, Any] = {"batch_size": batch_size, "amp": amp, "cache": cache}
        self.corrections = corrections
        self.self_test = self_test
        self._requested = RequestedSupport(self.geometry, labelled_slices, self.encoding)
        self._lock = Lock()
        self._pack: SupportPack | None = None
        self._network: weakref.ref[nn.Module] | None = None
        self._hash = ""

    def resolve(self, network: nn.Module, tester: Tester | None = None) -> SupportPack:
        """Return the pack for a network; `tester` tests one that is built.

        Raises:
            DataError: no support at all, an unusable one, or a pack of another network.
        """
        if self.support_dir and self.support_pack:
            raise DataError("both --support_dir and --support_pack are given; give one of the two.")
        current = weights_hash(network)
        with self._lock:
            known = self._network is not None and self._network() is network
            if self._pack is None or not known or self._hash != current:
                if self.save_support_pack:
                    another = "name another file with --save_support_pack"
                    check_writable(Path(self.save_support_pack).parent, another)
                pack = self._with_corrections(self._make(network, current, tester), network)
                if self.save_support_pack:
                    pack = pack.renamed(str(pack.save(self.save_support_pack)))
                self._pack, self._network, self._hash = pack, weakref.ref(network), current
            return self._pack

    def resolve_request(
        self, network: nn.Module, request: SupportRequest | None, tester: Tester | None = None
    ) -> ResolvedSupport:
        """The pack for a request, with what the person who asked should know.

        Args:
            network: encodes volumes; left in the mode in which it came.
            request: None, or one that names no volumes: `resolve` answers.
            tester: as of `resolve`.

        Raises:
            DataError: as `resolve`, or no volume of the request can serve.
        """
        if request is not None and request.volumes:
            found = self._requested.resolve(network, weights_hash(network), request)
            return found._replace(notes=(*request.notes, *found.notes))
        notes = () if request is None else request.notes
        try:
            pack = self.resolve(network, tester)
            if request is not None:
                pack = pack.selected(request.structures)
        except DataError as error:
            if request is None:
                raise
            known = notes[0] if notes else "no volume is labelled."
            raise DataError(
                f"{known[:-1]}, and the bundle's own support cannot serve ({str(error)[:-1]}); "
                "label a volume and submit its label."
            ) from error
        if request is not None and request.number_structures:
            pack = pack.numbered()
        source = self.support_dir or self.support_pack or "default pack"
        return ResolvedSupport(pack, notes, str(source))

    def _make(self, network: nn.Module, current: str, tester: Tester | None) -> SupportPack:
        if self.support_dir:
            support_set = load_support_set(
                self.support_dir,
                support_ids=self.support_ids,
                structures=self.structures,
                num_shots=self.num_shots,
            )
            support_set = replace(support_set, slices=self.labelled_slices)
            pack = build_support_pack(network, support_set, **self.geometry, **self.encoding)
            encoder = ScanEncoder(network, **self.encoding, weights=current)
            if self.self_test and tester is not None:
                pack = replace(pack, calibration=tester(encoder, support_set, pack))
            pack = with_mirrored(encoder, pack, support_set.scans[0].image)
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
            if not self.geometry.get("fuse_planes", True):
                pack = replace(pack, planes=())
            try_pack(pack, network)
            return pack.selected(self.structures)
        raise DataError(
            "no support: give a folder of labelled scans with --support_dir, or a pack with "
            "--support_pack (the bundle has no default pack)."
        )

    def _with_corrections(self, pack: SupportPack, network: nn.Module) -> SupportPack:
        found = self.corrections.found() if self.corrections is not None else {}
        scans = [scan for each in found.values() if (scan := _support_scan(each, pack))]
        if not scans:
            return pack
        source = str(self.corrections.corrections_dir) if self.corrections is not None else ""
        added = build_support_pack(
            network,
            SupportSet(tuple(scans), pack.structures, source),
            frame=pack.frame,
            partial=True,
            **self.encoding,
        )
        return join_packs([pack, added])


def _support_scan(correction: Correction, pack: SupportPack) -> SupportScan | None:
    """A scan that joins a support; None where its mask is empty, which is right for some scans."""
    scan = correction.load()
    known = {structure.value: structure.name for structure in pack.structures}
    values = {int(value) for value in np.unique(np.asarray(scan.label.data))} - {0}
    unknown = sorted(values - set(known))
    if unknown:
        listing = ", ".join(f"{value} ({name})" for value, name in known.items())
        raise DataError(
            f"{correction.mask}: holds label value {unknown[0]}, which is no structure of the "
            f"support ({listing}); correct the mask."
        )
    return scan if values else None


def try_pack(pack: SupportPack, network: nn.Module) -> None:
    """Compare a pack that fits its network with what this makes of a blank slice, and segment one.

    A missing tensor, or one of another shape than the network makes, is a `DataError`.
    """
    for plane in pack.planes:
        try_pack(plane, network)
    encoder = ScanEncoder(network)
    device, count = encoder.device, len(pack.structures)
    with eval_mode(network):
        states = []
        for side in _SIDES:
            features = encoder.slices(torch.zeros(1, 1, side, side))
            masks = torch.zeros(1, 1, count, side, side, device=device)
            masks[..., : side // 2, : side // 2] = 1
            valid = torch.ones(1, 1, count, dtype=torch.bool, device=device)
            states.append(network.build_support(features, masks, valid, None))  # type: ignore[operator]
        _compare(pack, states)
        if pack.profiles[0].descriptors.shape[1] != slice_descriptors(features.high).shape[1]:
            raise _unfit(pack, "scan.0.descriptors of another length")
        weights = pack.sections.any(-1)[None].float().to(device)
        try:
            logits = network.segment(features, move_state(pack.state, device), weights)  # type: ignore[operator]
        except (RuntimeError, ValueError, IndexError) as error:
            raise _unfit(pack, " ".join(str(error).split()[:20])) from error
    if logits.shape[:2] != (1, 1 + count) or not logits.isfinite().all():
        raise _unfit(pack, "a blank slice gets no finite logits")


def _compare(pack: SupportPack, states: Sequence[SupportState]) -> None:
    first, second = states
    if pack.state.keys() != first.keys():
        names = ", ".join(sorted(pack.state.keys() ^ first.keys()))
        raise _unfit(pack, f"only one of the two knows {names}")
    for name, kept in pack.state.items():
        made, larger = first[name], second[name]
        kind = torch.float32 if made.is_floating_point() else made.dtype
        same = kept.dtype == kind and kept.ndim == made.ndim and kept.shape[1] == made.shape[1]
        # a length that does not follow the size of the slice is the network's
        if not same or any(
            made.shape[axis] == larger.shape[axis] != kept.shape[axis]
            for axis in range(3, kept.ndim)
        ):
            raise _unfit(pack, f"state.{name} of {kept.dtype} and shape {tuple(kept.shape)}")


def _unfit(pack: SupportPack, reason: str) -> DataError:
    return DataError(
        f"{pack.source or 'this support pack'}: the support pack does not fit its network: "
        f"{reason}. {rebuild_sentence(pack.source)}"
    )
