"""The mask-copy floor: the support's masks laid on the query, whose image is never read."""

from __future__ import annotations

import numpy as np
import torch

from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.slicewise import merged_masks
from fsmis_components.support.sections import NUM_SECTIONS, section_slices
from fsmis_components.support.support_set import SupportSet


class MaskCopy(Subject):
    """Copy the masks of the support; what a method scores above it, it owes to the image.

    With three labelled slices per structure each third of the query (label-blind: of the volume,
    told: of the true extent) gets the mask of its section; with all slices each query slice gets
    the support's slice at the same relative height. Of several support scans the first that holds
    a structure is copied. Masks are centred on the query, and those of two structures may overlap.

    Args:
        slice_axis, ignore_spacing: as in `choose_slice_grid`.
    """

    name = "mask_copy"

    def __init__(self, slice_axis: str | int = "auto", ignore_spacing: bool = False) -> None:
        self.slice_axis = slice_axis
        self.ignore_spacing = ignore_spacing

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`; later structures lie over earlier ones."""
        grid = choose_slice_grid(
            support.scans[0].image, slice_axis=self.slice_axis, ignore_spacing=self.ignore_spacing
        )
        masks = self.predict_masks(support, query_image, grid)
        values = [structure.value for structure in support.structures]
        return merged_masks(SliceView(query_image, grid), values, masks)

    def predict_masks(
        self, support: SupportSet, query_image: Volume, grid: SliceGrid
    ) -> np.ndarray:
        """See `Subject.predict_masks`; structures may overlap."""
        view = SliceView(query_image, grid)
        thirds = np.arange(view.depth) * NUM_SECTIONS // view.depth
        masks = []
        for structure in support.structures:
            source, held = _stack_of(support, grid, structure.value)
            if support.slices == "all":
                copied = source[_spread(len(source), view.depth)]
            else:
                copied = source[list(section_slices(held))][thirds]
            masks.append(_fitted(copied, view.native_size))
        return np.stack(masks, axis=1)

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """See `Subject.predict_told`; structures may overlap in any case.

        With all slices the support's extent is stretched over the true one.
        """
        size = SliceView(query_image, grid).native_size
        chosen = sections.numpy()
        masks = np.zeros((*chosen.shape, *size), bool)
        for index, structure in enumerate(support.structures):
            source, held = _stack_of(support, grid, structure.value)
            told = np.flatnonzero(chosen[:, index] >= 0)
            if support.slices == "all":
                copied = source[held[0] + _spread(held[-1] + 1 - held[0], len(told))]
            else:
                copied = source[list(section_slices(held))][chosen[told, index]]
            masks[told, index] = _fitted(copied, size)
        return masks


def _fitted(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks (D, h, w) cropped or padded about the centre to (D, *size)."""
    return centre_fit(torch.from_numpy(masks), size).numpy()


def _spread(length: int, count: int) -> np.ndarray:
    """The slice among `length` at the same relative height as each of `count` slices' centres."""
    return (2 * np.arange(count) + 1) * length // (2 * max(count, 1))


def _stack_of(support: SupportSet, grid: SliceGrid, value: int) -> tuple[np.ndarray, list[int]]:
    """Masks (D, h, w) of the first scan that holds a structure, and the slices that hold it."""
    for scan in support.scans:
        stack = SliceView(scan.label, grid).native_labels() == value
        held = np.flatnonzero(stack.any((1, 2))).tolist()
        if held:
            return stack, held
    raise ValueError(f"mask_copy: no support scan holds label value {value}")
