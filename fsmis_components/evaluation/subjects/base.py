"""What the benchmark asks of a method: a support and a scan in, a label map out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.segmentation import label_dtype, label_values
from fsmis_components.support.support_set import SupportSet

Group = tuple[int, ...] | None
_SLAB = 16  # slices that are in memory at the native resolution at once


def group_suffix(group: Group) -> str:
    """What a group adds to the name of a fold: "_2-3", nothing for all structures."""
    return "" if group is None else f"_{'-'.join(map(str, group))}"


def scan_slices(
    view: SliceView, normalise: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> Tensor:
    """Normalised slices (D, 1, *size), each centred; around it lies its own darkest value."""
    parts = []
    for start in range(0, view.depth, _SLAB):
        slices = normalise(view.slices(start, min(start + _SLAB, view.depth)))
        inside = centre_fit(torch.ones_like(slices), size) > 0
        darkest = slices.amin((-2, -1), keepdim=True)
        parts.append(torch.where(inside, centre_fit(slices, size), darkest))
    return torch.cat(parts)


def label_map(view: SliceView, values: Sequence[int], winners: Sequence[Tensor]) -> np.ndarray:
    """A label map (X, Y, Z) of the scan, of batches (n, h, w): 0 background, 1 + i structure i."""
    return view.restack(label_values(values)[torch.cat(list(winners)).numpy()])


def merged_masks(view: SliceView, values: Sequence[int], masks: np.ndarray) -> np.ndarray:
    """Masks (D, N, h, w) as a label map (X, Y, Z) of the scan; the last structure wins."""
    label = np.zeros(masks[:, 0].shape, label_dtype(max(values)))
    for index, value in enumerate(values):
        label[masks[:, index]] = value
    return view.restack(label)


class Subject(ABC):
    """A method under test.

    Only `predict` must be written. It gets no label of the query and cannot reach one.
    """

    name: str = "subject"  # what tables call it
    # "1", "2-any" or "2-all" of the training; "given" where weights are taken as they are, so that
    # nobody here knows what they have seen; "-" where nothing was trained
    setting: str = "-"
    # which supports it can use: "sections", three labelled slices per structure and scan (every
    # other slice of the label is empty), and "all", every slice of the scan
    labelled: Sequence[str] = ("sections", "all")
    origin: Mapping[str, Any] = {}  # of a user's class, as JSON values; beside `identity`

    @abstractmethod
    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """Segment a scan, label-blind.

        Args:
            support: labelled scans; `support.slices` says which of their slices are labelled.
            query_image: the scan, in any orientation and spacing.

        Returns:
            Integers (X, Y, Z) in the storage order of the scan: the label values of
            `support.structures`, 0 elsewhere.
        """

    def predict_masks(
        self, support: SupportSet, query_image: Volume, grid: SliceGrid
    ) -> np.ndarray:
        """The answer of `predict` as masks, for methods whose structures may overlap.

        Args:
            support: as in `predict`.
            query_image: as in `predict`.
            grid: says along which axis the slices are cut.

        Returns:
            Masks (D, N, h, w) of bool on the slices of `SliceView`.

        Raises:
            DataError: the method returned something else than a label map of the scan.
        """
        label = np.asarray(self.predict(support, query_image))
        if label.shape != query_image.shape or label.dtype.kind not in "biu":
            raise DataError(
                f"{self.name}: predict returned {label.dtype} of shape {label.shape}; it has to "
                f"return integers of the query's shape {query_image.shape}."
            )
        slices = SliceView(Volume(label, query_image.affine), grid).native_labels()
        return np.stack([slices == entry.value for entry in support.structures], axis=1)

    def predict_told(
        self,
        support: SupportSet,
        query_image: Volume,
        grid: SliceGrid,
        sections: torch.Tensor,
        overlap: bool,
    ) -> np.ndarray:
        """Segment a scan whose label told where each structure begins and ends (EP1, oracle).

        By default the label-blind map, cut to these slices: right for a method that matches no
        slices. One that does uses the sections.

        Args:
            support: as in `predict`.
            query_image: as in `predict`.
            grid: says along which axis the slices are cut.
            sections: (D, N), third of the true extent in which slice d lies for structure n, 0, 1
                or 2; -1 outside the extent.
            overlap: True: each structure by itself, as in the papers; False: they compete.

        Returns:
            Masks (D, N, h, w) of bool on the slices of `SliceView`, empty where `sections` is -1.
        """
        masks = self.predict_masks(support, query_image, grid)
        return masks & (sections >= 0).numpy()[..., None, None]

    def load(self, fold: int, group: Group) -> None:  # noqa: B027 (most methods need nothing)
        """Get ready for a fold: use weights that never saw its support and test scans.

        Args:
            fold: number of the fold.
            group: one of `groups()`.
        """

    def see(  # noqa: B027
        self, others: Sequence[Path], tested: Sequence[Path], folder: Path
    ) -> None:
        """Take the images of a fold, for methods that learn from scans without labels.

        Args:
            others: scans that are neither tested nor support.
            tested: scans that are tested; a method that learns from them says so in its name.
            folder: for what the method keeps of this fold and support; it is not made here.
        """

    def groups(self) -> Sequence[Group]:
        """Label values that are segmented together, one model each; None: all structures."""
        return (None,)

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """All that decides the masks besides data and code, as JSON values: hashes, settings."""
        return {}
