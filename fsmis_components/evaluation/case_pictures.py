"""Best, median and worst case: slices with the label and the prediction as outlines."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView, choose_slice_grid, display_plane
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.records import CaseRecord

NUM_SLICES = 5
_MARGIN = 0.06  # of the larger side of a slice, about what is outlined
_SMALLEST = 0.45  # of each side of a slice, so that one sees where one is
_WIDTH = 2.0  # inches of a slice


def picked_units(means: Mapping[tuple[int, str], float]) -> list[tuple[str, tuple[int, str]]]:
    """Best, median and worst case with what they are called; fewer where there are fewer.

    Args:
        means: Dice by fold and case.
    """
    ordered = sorted(means, key=lambda unit: (-means[unit], unit))
    if len(ordered) < 2:
        return [("Only case", unit) for unit in ordered]
    picked = [("Best case", ordered[0]), ("Worst case", ordered[-1])]
    if len(ordered) > 2:
        picked.insert(1, ("Median case", ordered[len(ordered) // 2]))
    return picked


def case_picture(
    record: CaseRecord, masks: Mapping[str, Path], values: Mapping[str, int], colours: Sequence[str]
) -> str:
    """Slices of a case in a row.

    Args:
        record: names the scan and its label.
        masks: per structure the label map that holds its prediction.
        values: label value of each structure.
        colours: "#rrggbb" of each structure.

    Returns:
        The address of a PNG picture that stands in the page itself.

    Raises:
        DataError: a file is missing or cannot be used.
    """
    image = load_image(record.image)
    grid = choose_slice_grid(image, slice_axis=record.slice_axis)
    view = SliceView(image, grid)
    label = SliceView(load_label(record.label, image), grid).native_labels()
    stacks = {
        path: SliceView(load_label(path, image), grid).native_labels()
        for path in dict.fromkeys(masks.values())
    }
    truth = np.stack([label == value for value in values.values()])  # (N, D, h, w)
    predicted = np.stack([stacks[masks[name]] == value for name, value in values.items()])
    chosen = chosen_slices(np.any(truth, axis=0), np.any(predicted, axis=0))
    numbers = [number for number, _ in chosen]
    outlined = np.any(truth | predicted, axis=0)
    crop = crop_about(np.any([display_plane(outlined[number]) for number in numbers], axis=0))
    planes = [display_plane(view.native(n, n + 1)[0]).astype(float)[crop] for n in numbers]
    low, high = np.quantile(planes, (0.01, 0.985))
    _, columns, rows = view.native_spacing  # of the view's rows and columns, which display swaps
    height, width = np.multiply(planes[0].shape, (rows, columns))
    with matplotlib.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}):
        figure = Figure((_WIDTH * len(chosen), _WIDTH * height / width + 0.3), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (number, note) in enumerate(chosen):
            axes = figure.add_subplot(1, len(chosen), place + 1)
            axes.imshow(planes[place], "gray", vmin=low, vmax=high, aspect=rows / columns)
            for colour, found, true in zip(colours, predicted, truth, strict=True):
                for mask, line, style in ((found, colour, "-"), (true, "white", "--")):
                    shown = display_plane(mask[number])[crop]
                    if shown.any() and not shown.all():
                        axes.contour(shown, [0.5], colors=line, linestyles=style, linewidths=1)
            axes.set_axis_off()
            axes.set_title(f"slice {number + 1} of {view.depth}{note}", fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def mask_paths(
    records: Sequence[CaseRecord], structures: Sequence[str], key: str, folder: Path
) -> dict[str, Path]:
    """Per structure the label map of a case, which several models may share.

    Raises:
        DataError: the run kept none.
    """
    found = {
        row.structure: folder / record.masks[key]
        for record in records
        for row in record.rows
        if key in record.masks
    }
    missing = [name for name in structures if name not in found]
    if missing:
        raise DataError(f"the run kept no label map of {missing[0]}; evaluate the case again.")
    return {name: found[name] for name in structures}


def chosen_slices(truth: np.ndarray, predicted: np.ndarray) -> list[tuple[int, str]]:
    """Slices to show and a note to each.

    Args:
        truth: (D, h, w), does the label hold any of the structures.
        predicted: the prediction alike.

    Returns:
        Up to five slices spread over those of the label (over the prediction where there is no
        label, over the scan where there is neither), and, last, the one beyond the label with
        the largest prediction, if any.
    """
    area = predicted.sum((1, 2))
    candidates = np.flatnonzero(truth.any((1, 2)))
    if not len(candidates):
        candidates = np.flatnonzero(area) if area.any() else np.arange(len(truth))
    number = min(NUM_SLICES, len(candidates))
    places = (2 * np.arange(number) + 1) * len(candidates) // (2 * number)
    chosen = [(int(candidates[place]), "") for place in places]
    area[candidates[0] : candidates[-1] + 1] = 0
    if area.any():
        chosen.append((int(area.argmax()), ", no label"))
    return chosen


def crop_about(outlined: np.ndarray) -> tuple[slice, slice]:
    """The part of a picture (h, w) to show: what is outlined, with a margin."""
    margin = round(_MARGIN * max(outlined.shape))
    parts = []
    for axis, size in enumerate(outlined.shape):
        own = np.flatnonzero(outlined.any(1 - axis))
        first, last = (int(own[0]), int(own[-1])) if len(own) else (0, size - 1)
        length = min(size, max(last - first + 1 + 2 * margin, round(_SMALLEST * size)))
        start = min(max(0, (first + last + 1 - length) // 2), size - length)
        parts.append(slice(start, start + length))
    return parts[0], parts[1]
