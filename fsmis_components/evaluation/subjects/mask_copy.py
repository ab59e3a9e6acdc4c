"""The mask-copy floor: the support's masks laid on the query, whose image is never read."""

from __future__ import annotations

import numpy as np
import torch

from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit, choose_slice_grid
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Subject, merged_masks
from fsmis_components.support.sections import NUM_SECTIONS, section_slices
from fsmis_components.support.support_set import SupportSet


class MaskCopy(Subject):
    """Copy the masks of the support; what a method scores above it, it owes to the image.

    With three labelled slices per structure each third of the query (label-blind: of the volume,
    told: of the true extent) gets the mask of its section; with all slices each query slice gets
    the support's slice at the same relative height. Of several support scans the first that holds
    a structure is copied. Masks are centred on the query, and those of two structures may overlap.
    """

    name = "mask_copy"

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`; later structures lie over earlier ones."""
        grid = choose_slice_grid(support.scans[0].image)
        masks = self.predict_masks(support, query_image, grid)
        values = [structure.value for structure in support.structures]
        return merged_masks(SliceView(query_image, grid), values, masks)

    def predict_masks(
        self, support: SupportSet, query_image: Volume, grid: SliceGrid
    ) -> np.ndarray:
        """See `Subject.predict_masks`; structures may overlap."""
        view = SliceView(query_image, grid)
        thirds = np.arange(view.depth) * NUM_SECTIONS // view.depth
        values = [structure.value for structure in support.structures]
        copies = [_copied(support, grid, value, thirds, view.native_size) for value in values]
        return np.stack(copies, axis=1)

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """See `Subject.predict_told`; of all slices the extent is stretched over the true one."""
        size = SliceView(query_image, grid).native_size
        masks = np.zeros((*sections.shape, *size), bool)
        for index, structure in enumerate(support.structures):
            thirds = sections[:, index].numpy()
            told = np.flatnonzero(thirds >= 0)
            masks[told, index] = _copied(support, grid, structure.value, thirds[told], size, True)
        return masks


def _copied(
    support: SupportSet,
    grid: SliceGrid,
    value: int,
    thirds: np.ndarray,
    size: tuple[int, int],
    extent: bool = False,
) -> np.ndarray:
    """Masks (D, *size) of a structure for slices of these thirds.

    With all slices labelled that at the same relative height of the support scan, or of its extent.
    """
    for scan in support.scans:
        stack = SliceView(scan.label, grid).native_labels() == value
        held = np.flatnonzero(stack.any((1, 2))).tolist()
        if held:
            break
    if support.slices == "all":
        start, stop = (held[0], held[-1] + 1) if extent else (0, len(stack))
        heights = (2 * np.arange(len(thirds)) + 1) * (stop - start) // (2 * max(len(thirds), 1))
        copied = stack[start + heights]
    else:
        copied = stack[list(section_slices(held))][thirds]
    return centre_fit(torch.from_numpy(copied), size).numpy()
