"""Scans as the student sees them, a plain 2.5D network of a folder, and its answer for a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceGrid, SliceView, centre_fit
from fsmis_components.data.intensity import Normalisation, fit_normaliser
from fsmis_components.data.volumes import Volume
from fsmis_components.support.encode import structure_masks

_SIDE = 16  # pixels: the student halves its maps four times
_LEAST_SIDE = 64  # pixels of a small scan, so that its lowest maps still have some
_SLAB = 16  # slices that are read, or go through the network, at a time


@dataclass(frozen=True)
class StudentScan:
    """One scan of the folder, small enough to be kept in memory."""

    name: str  # of its file, without the ending
    image: Tensor  # `student_image`
    label: Tensor  # uint8 (D, H, W), 0 background, n the n-th structure
    spacing: float  # millimetres between slices
    doubtful: Tensor  # bool (D, N), whether a structure's mask is not to be learned in a slice
    labelled: bool  # by a person

    @property
    def middle(self) -> float:
        """The slice in the middle of all structures, that of the scan where there are none."""
        counts = (self.label > 0).sum((1, 2)).double()
        slices = torch.arange(len(counts), dtype=torch.float64)
        if not counts.any():
            return float(slices.mean())
        return float((counts * slices).sum() / counts.sum())


def student_grid(grid: SliceGrid, volume: Volume, most: int) -> SliceGrid:
    """The support's grid at the student's resolution.

    Args:
        grid: of the support pack.
        volume: a labelled scan.
        most: pixels of the larger side of a slice at the most; a scan of fewer voxels keeps these.
    """
    native = max(SliceView(volume, grid).native_size)
    side = min(most, max(_LEAST_SIDE, whole_side(native)))
    spacing = None if grid.spacing is None else grid.spacing * grid.spatial_size / side
    return replace(grid, spatial_size=side, spacing=spacing)


def student_image(view: SliceView, normalisation: Normalisation) -> Tensor:
    """All slices (D, H, W) of a scan, float16: clipped, in standard deviations above the darkest.

    Zero is the darkest, so that what pads a slice is dark, and `NormalizeIntensity` without a
    subtrahend does the same outside this package.
    """
    normalise = fit_normaliser(view.volume, normalisation)
    slabs = [
        normalise(view.slices(start, min(start + _SLAB, view.depth)))[:, 0]
        for start in range(0, view.depth, _SLAB)
    ]
    image = torch.cat(slabs)
    darkest = normalise(torch.tensor(float(normalise.lower)))
    return (image - (darkest if torch.isfinite(darkest) else image.min())).half()


def student_label(view: SliceView, values: tuple[int, ...]) -> Tensor:
    """The label of a scan as numbers of structures, uint8 (D, H, W); view is that of the label."""
    numbers = torch.arange(1, len(values) + 1, dtype=torch.uint8)[:, None, None]
    return (structure_masks(view, values) * numbers).amax(1)


def whole_side(length: int) -> int:
    """The next number of pixels that the student can halve four times."""
    return -(-length // _SIDE) * _SIDE


def with_neighbours(image: Tensor, start: int, stop: int) -> Tensor:
    """Slices start..stop-1 of (D, H, W), each between its neighbours: float32 (n, 3, H, W).

    Beyond the ends the last slice stands again.
    """
    places = torch.arange(start, stop)
    stacks = [image[(places + step).clamp(0, len(image) - 1)] for step in (-1, 0, 1)]
    return torch.stack(stacks, 1).float()


def student_shares(network: nn.Module, image: Tensor) -> Tensor:
    """What the student says of all slices of a scan.

    Args:
        network: (B, 3, H, W) -> logits (B, 1 + N, H, W); left in the mode in which it came.
        image: (D, H, W), see `student_image`.

    Returns:
        float16 (D, 1 + N, H, W), probabilities.
    """
    device = next(network.parameters()).device
    own = image.shape[1:]
    size = [whole_side(length) for length in own]
    shares = []
    with eval_mode(network), torch.inference_mode():
        for start in range(0, len(image), _SLAB):
            stack = with_neighbours(image, start, min(start + _SLAB, len(image)))
            logits = network(centre_fit(stack, size).to(device))
            shares.append(centre_fit(logits.softmax(1), own).half().cpu())
    return torch.cat(shares)


def relabelled(scan: StudentScan, students: Sequence[nn.Module]) -> StudentScan:
    """A scan with the mean mask of the students, one of which has not learned from it."""
    shares = torch.stack([student_shares(each, scan.image).float() for each in students]).mean(0)
    label = shares.argmax(1).byte()
    return replace(scan, label=label, doubtful=torch.zeros_like(scan.doubtful))
