"""Overlay pictures: the outline of a segmentation on slices of its scan."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    columns = min(COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(3.0 * columns, 3.0 * rows + 0.9), facecolor="white")
    FigureCanvasAgg(figure)
    slices = torch.cat([view.slices(index, index + 1)[0] for index in chosen])
    lower, upper = np.quantile(slices.numpy(), (0.005, 0.995))
    for position, index in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, position + 1)
        axes.set_axis_off()
        axes.imshow(
            display_plane(slices[position].numpy()),
            cmap="gray",
            vmin=lower,
            vmax=max(upper, lower + 1),
        )
        axes.set_title(f"slice {index + 1} of {view.depth}", fontsize=8)
        masks = mask_view.labels(index, index + 1, values)[0]
        for structure, mask in zip(structures, masks, strict=True):
            if mask.any():
                axes.contour(
                    display_plane(mask.numpy()), [0.5], colors=[structure.colour], linewidths=1.3
                )
    present = set(np.unique(label).tolist())
    figure.legend(
        handles=[
            Line2D(
                [],
                [],
                color=structure.colour,
                linewidth=3,
                label=structure.name + ("" if structure.value in present else " (not found)"),
            )
            for structure in structures
        ],
        loc="lower center",
        ncols=min(len(structures), 2 * columns),
        frameon=False,
        fontsize=9,
    )
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    figure.savefig(temporary, format="png", dpi=100)
    os.replace(temporary, path)
    return path


def chosen_slices(labels: np.ndarray, values: Sequence[int]) -> list[int]:
    """Up to twelve slices spread over those of (D, h, w) labels that hold one of the values."""
    candidates = np.flatnonzero(np.isin(labels, values).any(axis=(1, 2)))
    if not len(candidates):
        candidates = np.arange(len(labels))
    positions = np.linspace(0, len(candidates) - 1, min(MAX_SLICES, len(candidates)))
    return [int(candidates[round(position)]) for position in positions]
