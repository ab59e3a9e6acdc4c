"""Overlay pictures: the outline of a segmentation on slices of its scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fsmis_components.data.atomic import atomic_write
from fsmis_components.data.geometry import SliceGrid, SliceView, display_plane
from fsmis_components.data.volumes import Volume
from fsmis_components.support.support_set import Structure

MAX_SLICES = 12
COLUMNS = 4


def save_overlay(
    path: str | Path,
    image: Volume,
    label: np.ndarray,
    structures: Sequence[Structure],
    grid: SliceGrid,
    title: str,
) -> Path:
    """Write a PNG with up to twelve slices, structures outlined in their colours.

    The slices are spread over those that hold a structure, or over the scan where none does. They
    are turned as radiologists see them, see `display_plane`.

    Args:
        path: the picture.
        image: the scan.
        label: (X, Y, Z) label values on the scan's grid.
        structures: names, values and colours.
        grid: working geometry, whose slices are shown.
        title: heading.
    """
    view = SliceView(image, grid)
    values = [structure.value for structure in structures]
    mask_view = SliceView(Volume(label, image.affine, image.source), grid)
    chosen = chosen_slices(mask_view.native_labels(), values)
    slices = torch.cat([view.slices(index, index + 1)[0] for index in chosen]).numpy()
    masks = torch.cat([mask_view.labels(index, index + 1, values) for index in chosen]).numpy()
    # one mosaic in one axes: a subplot per slice would take seconds
    mosaic, corners = _mosaic(slices)
    width = 3.0 * min(COLUMNS, len(chosen))
    height = width * mosaic.shape[0] / mosaic.shape[1]
    margin = 0.45  # inches for the title above and for the legend below
    figure = Figure(figsize=(width, height + 2 * margin), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, margin / (height + 2 * margin), 1, height / (height + 2 * margin)))
    axes.set_axis_off()
    lower, upper = np.quantile(slices, (0.005, 0.995))
    axes.imshow(mosaic, cmap="gray", vmin=lower, vmax=max(upper, lower + 1e-6), aspect="auto")
    for structure, own in zip(structures, masks.transpose(1, 0, 2, 3), strict=True):
        if own.any():
            outlined = _mosaic(own)[0]
            axes.contour(outlined, [0.5], colors=[structure.colour], linewidths=1.3)
    for index, (top, left) in zip(chosen, corners, strict=True):
        text = f"{index + 1} of {view.depth}"
        axes.text(left + 3, top + 3, text, color="white", fontsize=7, va="top")
    present = set(np.unique(label).tolist())
    handles = [
        Line2D([], [], color=structure.colour, linewidth=3, label=_legend(structure, present))
        for structure in structures
    ]
    columns = min(len(structures), 2 * COLUMNS)
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    options: dict[str, Any] = {"format": "png", "dpi": 100, "pil_kwargs": {"compress_level": 3}}
    return atomic_write(Path(path), lambda unfinished: figure.savefig(unfinished, **options))


def chosen_slices(labels: np.ndarray, values: Sequence[int]) -> list[int]:
    """Up to twelve slices spread over those of (D, h, w) labels that hold one of the values."""
    candidates = np.flatnonzero(np.isin(labels, values).any(axis=(1, 2)))
    if not len(candidates):
        candidates = np.arange(len(labels))
    positions = np.linspace(0, len(candidates) - 1, min(MAX_SLICES, len(candidates)))
    return [int(candidates[round(position)]) for position in positions]


def _mosaic(slices: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Slices (n, h, w) upright beside each other, and the top left corner of each."""
    pictures = [display_plane(plane) for plane in slices]
    height, width = pictures[0].shape
    columns = min(COLUMNS, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    corners = [
        (index // columns * height, index % columns * width) for index in range(len(pictures))
    ]
    mosaic = np.full((rows * height, columns * width), pictures[0].min(), np.float32)
    for picture, (top, left) in zip(pictures, corners, strict=True):
        mosaic[top : top + height, left : left + width] = picture
    return mosaic, corners


def _legend(structure: Structure, present: set[int]) -> str:
    return structure.name if structure.value in present else f"{structure.name} (not found)"
