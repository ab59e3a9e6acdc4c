"""Where a network's support comes from: a folder or a pack, and masks that were corrected."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np
import torch
from monai.networks import eval_mode
from torch import nn

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.cases import Case, find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.nifti import is_nifti_name
from fsmis_components.data.run_record import masks_as_written
from fsmis_components.data.volume_names import strip_volume_suffix
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.encoding import FeatureStore, ScanEncoder
from fsmis_components.encoding.identity import weights_hash
from fsmis_components.encoding.slice_descriptors import slice_descriptors
from fsmis_components.layers.support_state import move_state
from fsmis_components.support.calibration import Calibration
from fsmis_components.support.encode import build_support_pack, with_mirrored
from fsmis_components.support.support_pack import SupportPack, join_packs
from fsmis_components.support.support_request import (
    RequestedSupport,
    ResolvedSupport,
    SupportRequest,
)
from fsmis_components.support.support_set import (
    LabelledSlices,
    Structure,
    SupportScan,
    SupportSet,
    Wanted,
    load_support_set,
)

_SIDE = 96  # pixels; a network takes slices of any size
# given from above, because it segments volumes
Tester = Callable[[ScanEncoder, SupportSet, SupportPack], Calibration]


@dataclass(frozen=True)
class Correction:
    """A scan of the folder and its corrected mask."""

    case: Case
    mask: Path

    def load(self) -> SupportScan:
        """The scan with its mask on the scan's grid.

        A file that cannot be used, or a mask of another scan, is a `DataError`.
        """
        image = load_image(self.case.image)
        return SupportScan(self.case.name, image, load_label(self.mask, image))

    def support_scan(self, structures: Sequence[Structure]) -> SupportScan | None:
        """The scan, to join a support; None where its mask is empty, which is right for some scans.

        A label value that is none of the structures is a `DataError`.
        """
        scan = self.load()
        known = {structure.value: structure.name for structure in structures}
        values = {int(value) for value in np.unique(np.asarray(scan.label.data))} - {0}
        unknown = sorted(values - set(known))
        if unknown:
            listing = ", ".join(f"{value} ({name})" for value, name in known.items())
            raise DataError(
                f"{self.mask}: holds label value {unknown[0]}, which is no structure of the "
                f"support ({listing}); correct the mask."
            )
        return scan if values else None


class Corrections:
    """The corrected masks of a folder (None: there are none) of the scans of another.

    A mask is named after its scan: for `image_7.nii.gz` it is `image_7_seg.nii.gz` or
    `image_7.nii.gz`. The folder may be the output folder of a run, in which some masks were
    corrected in place: then those count that are no longer as the run wrote them.
    """

    def __init__(self, corrections_dir: str | Path | None, dataset_dir: str | Path) -> None:
        self.corrections_dir = Path(corrections_dir) if corrections_dir else None
        self.dataset_dir = dataset_dir
        self._found: dict[str, Correction] | None = None

    def found(self) -> dict[str, Correction]:
        """Corrections by the stem of their scan, in natural order.

        Raises:
            DataError: there is no such folder, no mask in it, a mask of no scan, two of one scan,
                or an output folder that does not say what its run wrote.
        """
        if self._found is None:
            self._found = {} if self.corrections_dir is None else self._find(self.corrections_dir)
        return self._found

    def _find(self, folder: Path) -> dict[str, Correction]:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; check --corrections_dir.")
        cases = {case.stem: case for case in find_cases(self.dataset_dir, labels="never")}
        written = masks_as_written(folder)
        masks: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            name = strip_volume_suffix(path.name)
            if path.name[0] == "." or name.endswith("_uncertainty") or not is_nifti_name(path.name):
                continue
            stem = name.removesuffix("_seg")
            if stem not in cases:
                raise DataError(
                    f"{path}: a corrected mask of no scan in {self.dataset_dir}; name it after its "
                    "scan, as image_7_seg.nii.gz for image_7.nii.gz, or remove it."
                )
            if stem in masks:
                raise DataError(
                    f"{path}: a second corrected mask of {stem} beside {masks[stem].name}; keep "
                    "one of the two."
                )
            if written is None or stem in written and file_hash(path) != written[stem]:
                masks[stem] = path
        if not masks:
            trouble = "no corrected mask" if written is None else "no mask was changed since"
            raise DataError(
                f"{folder}: {trouble}; correct one, name it as image_7_seg.nii.gz for "
                "image_7.nii.gz, or leave --corrections_dir out."
            )
        return {stem: Correction(cases[stem], masks[stem]) for stem in cases if stem in masks}


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
        self.structures = structures
        self.chosen: dict[str, Any] = {"support_ids": support_ids, "num_shots": num_shots}
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
                self.support_dir, structures=self.structures, **self.chosen
            )
            support_set = replace(support_set, slices=self.labelled_slices)
            pack = build_support_pack(network, support_set, **self.geometry, **self.encoding)
            encoder = ScanEncoder(network, **self.encoding, weights=current)
            if self.self_test and tester is not None:
                pack = replace(pack, calibration=tester(encoder, support_set, pack))
            pack = with_mirrored(encoder, pack, support_set.scans[0].image)
            return replace(pack, source=str(self.support_dir))
        if any(value is not None for value in self.chosen.values()):
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
