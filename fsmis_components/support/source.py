"""Where a network's support comes from: a folder or a pack, and masks that were corrected."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import torch
from monai.networks import eval_mode
from torch import nn

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.errors import DataError
from fsmis_components.encoding import FeatureStore, ScanEncoder
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.layers.support_state import move_state
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.corrections import Corrections
from fsmis_components.support.encode import build_support_pack, with_mirrored
from fsmis_components.support.support_pack import SupportPack, join_packs
from fsmis_components.support.support_request import (
    RequestedSupport,
    ResolvedSupport,
    SupportRequest,
)
from fsmis_components.support.support_set import (
    LabelledSlices,
    SupportSet,
    Wanted,
    load_support_set,
)

_SIDE = 96  # pixels; a network takes slices of any size
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
        cache: where features of scans are kept, so that no scan is encoded twice.
        self_test: a support that is built from a folder is tested, by who resolves it.
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
        if labelled_slices not in get_args(LabelledSlices):
            raise DataError(f"labelled_slices: expected all or sections, got {labelled_slices!r}.")
        self.support_dir = support_dir
        self.support_pack = support_pack
        self.default_pack = default_pack
        self.save_support_pack = save_support_pack
        self.support_ids = support_ids
        self.structures = structures
        self.num_shots = num_shots
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
                    pack = replace(pack, source=str(pack.save(self.save_support_pack)))
                self._pack, self._network, self._hash = pack, weakref.ref(network), current
            return self._pack

    def resolve_request(
        self, network: nn.Module, request: SupportRequest | None, tester: Tester | None = None
    ) -> ResolvedSupport:
        """The pack for a request, with what the person who asked should know.

        Where the request is None, or names no volumes, `resolve` answers. That it cannot, or that
        no volume of the request can serve, is a `DataError`.
        """
        if request is None:
            return ResolvedSupport(self.resolve(network, tester), (), self._name())
        if request.volumes:
            found = self._requested.resolve(network, weights_hash(network), request)
            return found._replace(notes=(*request.notes, *found.notes))
        try:
            pack = self.resolve(network, tester).selected(request.structures)
        except DataError as error:
            known = request.notes[0] if request.notes else "no volume is labelled."
            raise DataError(
                f"{known[:-1]}, and the bundle's own support cannot serve ({str(error)[:-1]}); "
                "label a volume and submit its label."
            ) from error
        pack = pack.numbered() if request.number_structures else pack
        return ResolvedSupport(pack, request.notes, self._name())

    def _name(self) -> str:
        return str(self.support_dir or self.support_pack or "default pack")

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
            return replace(pack, source=str(self.support_dir))
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
        if self.corrections is None:
            return pack
        found = self.corrections.found().values()
        scans = tuple(scan for each in found if (scan := each.support_scan(pack.structures)))
        if not scans:
            return pack
        support_set = SupportSet(scans, pack.structures, str(self.corrections.corrections_dir))
        added = build_support_pack(network, support_set, frame=pack.frame, **self.encoding)
        return join_packs([pack, added])


def try_pack(pack: SupportPack, network: nn.Module) -> None:
    """Segment a blank slice with each plane of a pack; where that fails it is a `DataError`."""
    encoder = ScanEncoder(network)
    with eval_mode(network):
        features = encoder.slices(torch.zeros(1, 1, _SIDE, _SIDE))
        valid = torch.ones(1, 1, 1, dtype=torch.bool, device=encoder.device)
        mask = torch.zeros(1, 1, 1, _SIDE, _SIDE, device=encoder.device)
        mask[..., : _SIDE // 2] = 1
        made = network.build_support(features, mask, valid, None)  # type: ignore[operator]
        for plane in (pack, *pack.planes):
            if names := plane.state.keys() ^ made.keys():
                raise pack.unfit(f"only one of the two knows {', '.join(sorted(names))}")
            if plane.profiles[0].descriptors.shape[1] != slice_descriptors(features.high).shape[1]:
                raise pack.unfit("its descriptors are of another length")
            weights = plane.sections.any(-1)[None].float().to(encoder.device)
            try:
                state = move_state(plane.state, encoder.device)
                logits = network.segment(features, state, weights)  # type: ignore[operator]
            except (RuntimeError, ValueError, LookupError) as error:
                raise pack.unfit(" ".join(str(error).split()[:20])) from error
            if logits.shape[:2] != (1, 1 + len(plane.structures)) or not logits.isfinite().all():
                raise pack.unfit("a blank slice gets no finite logits")
