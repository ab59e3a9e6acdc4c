"""UniverSeg as a subject, where the user gives its package and its weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.intensity import Normalisation, fit_normaliser, resolve_modality
from fsmis_components.data.stored_array import slabs
from fsmis_components.data.volumes import Volume
from fsmis_components.data.weights import differing_entries, read_state_dict
from fsmis_components.evaluation.subjects.base import Group, Subject
from fsmis_components.evaluation.subjects.slicewise import (
    label_map,
    on_canvas,
    scan_slices,
)
from fsmis_components.support.encode import structure_slices
from fsmis_components.support.sections import NUM_SECTIONS, section_of_slice, section_slices
from fsmis_components.support.support_pack import weights_hash
from fsmis_components.support.support_set import SupportSet

SIZE = 128  # pixels along each side of a slice, as its authors demand
_PACKAGE = "pip install git+https://github.com/JJGO/UniverSeg.git"
_WEIGHTS = "universeg_v1_nf64_ss64_STA.pt of https://github.com/JJGO/UniverSeg/releases/tag/weights"


@dataclass(frozen=True)
class Examples:
    """Slices of one structure with their masks: images and labels (S, 1, 128, 128)."""

    images: Tensor
    labels: Tensor


class UniverSegSubject(Subject):
    """Segment by UniverSeg (Butoi et al., ICCV 2023), one pass per structure and query slice.

    Label-blind, every query slice sees the same support slices: with three labelled slices per
    structure and scan these, with all slices labelled all of them, those without the structure
    too. Told where a structure begins and ends, a slice sees the support slices of its third.

    The larger in-plane extent of the first support scan fills 128 pixels; every scan is cut at the
    same millimetres per pixel, centred on 128 x 128, padded with each slice's darkest value and
    cropped where it is larger. Intensities are clipped as for the bundles and stretched to 0..1 per
    scan. Logits go back to the scan's grid linearly; above 0 is the structure, and among several
    structures the largest logit wins.

    Args:
        weights: file with the released state dict; it is never downloaded here.
        max_support: support slices per pass; of more, evenly spaced ones are taken. The released
            weights were trained with 64.
        batch_size: query slices per pass.
        amp: bfloat16 autocast.
        device: where the network is applied.
        modality: "mr", "ct" or "auto" (by the first scan's intensities).
        slice_axis: as in `choose_slice_grid`.
        ignore_spacing: as in `choose_slice_grid`.

    Raises:
        DataError: the package or the weights are missing, or the weights are others.
    """

    name = "universeg"
    setting = "given"

    def __init__(
        self,
        weights: str | Path | None,
        max_support: int = 64,
        batch_size: int = 1,
        amp: bool = False,
        device: torch.device | str = "cpu",
        modality: str = "auto",
        slice_axis: str | int = "auto",
        ignore_spacing: bool = False,
    ) -> None:
        if max_support < 1 or batch_size < 1:
            raise DataError(
                "universeg: expected max_support and batch_size of at least 1, got "
                f"{max_support} and {batch_size}."
            )
        self.device = torch.device(device)
        self.network = _load_network(weights).to(self.device).eval()
        self.max_support = max_support
        self.batch_size = batch_size
        self.amp = amp
        self.modality = modality
        self.slice_axis = slice_axis
        self.ignore_spacing = ignore_spacing

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        return {
            "weights": weights_hash(self.network),
            "max_support": self.max_support,
            "batch_size": self.batch_size,
            "amp": self.amp,
            "device": self.device.type,
            "modality": self.modality,
            "slice_axis": self.slice_axis,
            "ignore_spacing": self.ignore_spacing,
        }

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`."""
        grid = self._grid(support, self.slice_axis, self.ignore_spacing)
        view = SliceView(query_image, grid)
        examples = self._examples(support, grid, told=False)
        values = [structure.value for structure in support.structures]
        # all slices of the query are answered by the same examples, as if of one section
        sections = torch.zeros(view.depth, len(values), dtype=torch.long)
        logits = self._native_logits(support, view, examples, sections)
        return label_map(view, values, [_winner(part) for part in logits])

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """See `Subject.predict_told`: a slice sees the support slices of its section."""
        own_grid = self._grid(support, grid.slice_axis, grid.spacing is None)
        view = SliceView(query_image, own_grid)
        examples = self._examples(support, own_grid, told=True)
        channels = torch.arange(1, 1 + len(examples))[:, None, None]
        masks = [
            logits > 0 if overlap else _winner(logits)[:, None] == channels
            for logits in self._native_logits(support, view, examples, sections)
        ]
        return torch.cat(masks).numpy()

    def _native_logits(
        self,
        support: SupportSet,
        view: SliceView,
        examples: Sequence[Sequence[Examples]],
        sections: Tensor,
    ) -> Iterator[Tensor]:
        """Logits (n, N, h, w) of the query's slices, batch by batch; -inf where section is -1."""
        scale = unit_scale(view.volume, self._normalisation(support))
        for start in range(0, view.depth, self.batch_size):
            stop = min(start + self.batch_size, view.depth)
            image = on_canvas(scale(view.slices(start, stop)), (SIZE, SIZE))
            wanted = sections[start:stop]
            logits = torch.full((*wanted.shape, *view.native_size), -torch.inf)
            for structure, by_section in enumerate(examples):
                for section, shown in enumerate(by_section):
                    rows = torch.nonzero(wanted[:, structure] == section).flatten()
                    if len(rows):
                        answer = centre_fit(self._forward(image[rows], shown), view.working_size)
                        logits[rows, structure] = view.to_native_logits(answer)[:, 0]
            yield logits

    def _forward(self, image: Tensor, shown: Examples) -> Tensor:
        """Logits (B, 1, 128, 128) on the CPU of slices that all see the same examples."""
        count = len(image)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp),
        ):
            logits = self.network(
                image.to(self.device),
                shown.images.to(self.device).expand(count, -1, -1, -1, -1),
                shown.labels.to(self.device).expand(count, -1, -1, -1, -1),
            )
        return logits.float().cpu()

    def _examples(
        self, support: SupportSet, grid: SliceGrid, *, told: bool
    ) -> list[list[Examples]]:
        """Per structure the examples that a query slice sees: per section, or one for all."""
        values = [structure.value for structure in support.structures]
        images, masks, held = [], [], []
        for scan in support.scans:
            scale = unit_scale(scan.image, self._normalisation(support))
            images.append(scan_slices(SliceView(scan.image, grid), scale, (SIZE, SIZE)))
            label = SliceView(scan.label, grid)
            masks.append(centre_fit(structure_slices(label, values)[1].float(), (SIZE, SIZE)))
            stack = label.native_labels()
            held.append([np.flatnonzero((stack == v).any((1, 2))).tolist() for v in values])
        examples = []
        for index, structure in enumerate(support.structures):
            by_section = []
            for section in range(NUM_SECTIONS) if told else (None,):
                picked = [
                    (scan, place)
                    for scan, own in enumerate(held)
                    for place in _shown(own[index], len(images[scan]), support.slices, section)
                ]
                if not picked:
                    raise DataError(
                        f"{support.source}: structure {structure.name} (label value "
                        f"{structure.value}) is in no support scan; label it there."
                    )
                picked = _spread(picked, self.max_support)
                by_section.append(
                    Examples(
                        torch.stack([images[scan][place] for scan, place in picked]),
                        torch.stack([masks[scan][place, index][None] for scan, place in picked]),
                    )
                )
            examples.append(by_section)
        return examples

    def _grid(self, support: SupportSet, slice_axis: str | int, ignore_spacing: bool) -> SliceGrid:
        return choose_slice_grid(
            support.scans[0].image,
            spatial_size=SIZE,
            slice_axis=slice_axis,
            ignore_spacing=ignore_spacing,
        )

    def _normalisation(self, support: SupportSet) -> Normalisation:
        return Normalisation(modality=resolve_modality(support.scans[0].image, self.modality))


def unit_scale(volume: Volume, normalisation: Normalisation) -> Callable[[Tensor], Tensor]:
    """Clip intensities as the normalisation does and map those of a scan to 0..1.

    A constant scan becomes 0 everywhere.
    """
    limits = fit_normaliser(volume, normalisation)
    darkest = max(limits.lower, min(float(slab.min()) for slab in slabs(volume.data)))
    brightest = min(limits.upper, max(float(slab.max()) for slab in slabs(volume.data)))
    extent = brightest - darkest

    def scale(image: Tensor) -> Tensor:
        return (image.clamp(darkest, brightest) - darkest) / (extent or 1.0)

    return scale


def _shown(own: Sequence[int], depth: int, labelled: str, section: int | None) -> list[int]:
    """Slices of a support scan that a query slice sees of one structure.

    Args:
        own: labelled slices that hold the structure, ascending.
        depth: slices of the scan.
        labelled: "sections" or "all".
        section: third of the query slice; None: not told.
    """
    if section is None:
        return list(range(depth)) if labelled == "all" else list(own)
    if not own:
        return []
    shown = {section_slices(own)[section]}
    if labelled == "all":
        shown |= {z for z in own if section_of_slice(z, own[0], own[-1]) == section}
    return sorted(shown)


def _spread(items: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """At most `limit` of the items, evenly spaced."""
    if len(items) <= limit:
        return items
    return [items[(2 * place + 1) * len(items) // (2 * limit)] for place in range(limit)]


def _winner(logits: Tensor) -> Tensor:
    """Of logits (n, N, h, w) the channel (n, h, w) of the largest above 0, from 1; 0: none is."""
    largest, channel = logits.max(1)
    return torch.where(largest > 0, channel + 1, 0)


def _load_network(weights: str | Path | None) -> nn.Module:
    try:
        package = importlib.import_module("universeg")
    except ImportError as error:
        raise DataError(
            f"universeg: its package cannot be imported ({error}); install it by '{_PACKAGE}'."
        ) from error
    if not weights:
        raise DataError(f"universeg: no weights were named; download {_WEIGHTS} and name the file.")
    if not Path(weights).is_file():
        raise DataError(f"{weights}: no such weights file; download {_WEIGHTS}.")
    state = read_state_dict(weights)
    # random first weights, overwritten below: the global random state stays as it is
    with torch.random.fork_rng(devices=[]):
        network = package.universeg(pretrained=False)
    wrong = sorted(differing_entries(network, state))
    if wrong:
        raise DataError(
            f"{weights}: not the weights of UniverSeg ({len(wrong)} entries differ, the first is "
            f"'{wrong[0]}'); use {_WEIGHTS}."
        )
    network.load_state_dict(state)
    return network
