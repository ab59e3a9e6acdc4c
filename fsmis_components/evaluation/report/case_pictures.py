"""Best, median and worst case: slices with the label and the prediction as contours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView, choose_slice_grid, display_plane
from fsmis_components.data.volumes import load_image, load_label
from fsmis_components.evaluation.records import SCORED, WHOLE_VOLUME, CaseRecord, Row
from fsmis_components.evaluation.report.series import Results, Series, Unit
from fsmis_components.evaluation.report.slice_picture import slice_picture

NUM_SLICES = 5
_MARGIN = 0.06  # of the larger side of a slice, about what is outlined
_SMALLEST = 0.45  # of each side of a slice, so that one sees where one is


@dataclass(frozen=True)
class _Shown:
    """One structure of the case that is shown."""

    row: Row
    mask: str | None  # path in the results folder


def case_pictures(results: Results, series: Series, folder: Path) -> list[str]:
    """A section per case: heading, Dice per structure, slices.

    Args:
        results: of the run.
        series: the method that is shown.
        folder: the results folder, in which the masks lie.
    """
    means = results.unit_means(series, WHOLE_VOLUME)
    return [
        _section(results, series, folder, rank, unit, means[unit])
        for rank, unit in picked_units(means)
    ]


def picked_units(means: Mapping[Unit, float]) -> list[tuple[str, Unit]]:
    """Best, median and worst case with what they are called; fewer where there are fewer."""
    ordered = sorted(means, key=lambda unit: (-means[unit], unit))
    if len(ordered) < 2:
        return [("Only case", unit) for unit in ordered]
    picked = [("Best case", ordered[0]), ("Worst case", ordered[-1])]
    if len(ordered) > 2:
        picked.insert(1, ("Median case", ordered[len(ordered) // 2]))
    return picked


def _section(
    results: Results, series: Series, folder: Path, rank: str, unit: Unit, mean: float
) -> str:
    records, shown = _first_support(results.records, series, unit)
    chips = "".join(
        f'<span class="chip"><i style="background:{results.colours[entry.row.structure]}"></i>'
        f"{escape(entry.row.structure)} {_percent(entry.row)}</span>"
        for entry in shown
    )
    try:
        slices = _slices(results, records[0], shown, folder)
        pictures = f'<div class="slices">{"".join(slices)}</div>'
    except DataError as error:
        pictures = f'<p class="warning">No picture of this case: {escape(str(error))}</p>'
    return (
        f'<section class="case"><h3>{rank}: {escape(unit[1])} '
        f'<span class="number">{mean:.1f} (fold {unit[0]})</span></h3>\n'
        f'<p class="chips">{chips}</p>\n{pictures}</section>'
    )


def _first_support(
    records: Sequence[CaseRecord], series: Series, unit: Unit
) -> tuple[list[CaseRecord], list[_Shown]]:
    """The records of the first choice of support, several where models share the structures."""
    found: dict[int, list[tuple[CaseRecord, _Shown]]] = {}
    for record in records:
        mask = record.masks.get(f"{WHOLE_VOLUME}/{series.labelled}")
        for row in record.rows:
            own = (row.method, row.setting, row.labelled, row.shots)
            if (
                own == (series.method, series.setting, series.labelled, series.shots)
                and row.protocol == WHOLE_VOLUME
                and (row.fold, row.case) == unit
            ):
                entry = (record, _Shown(row, mask))
                found.setdefault(row.choice, []).append(entry)
    first = found[min(found)]
    return [record for record, _ in first], [shown for _, shown in first]


def _slices(
    results: Results, record: CaseRecord, shown: Sequence[_Shown], folder: Path
) -> list[str]:
    image = load_image(record.image)
    grid = choose_slice_grid(image, slice_axis=record.slice_axis)
    view = SliceView(image, grid)
    label = SliceView(load_label(record.label, image), grid).native_labels()
    stacks: dict[str, np.ndarray] = {}
    for entry in shown:
        if entry.mask is None:
            raise DataError(
                f"case {entry.row.case}: the run kept no label map of {entry.row.structure}; "
                "evaluate the case again."
            )
        if entry.mask not in stacks:
            volume = load_label(folder / entry.mask, image)
            stacks[entry.mask] = SliceView(volume, grid).native_labels()
    truth = {entry.row.structure: label == entry.row.value for entry in shown}
    predicted = {entry.row.structure: stacks[str(entry.mask)] == entry.row.value for entry in shown}
    chosen = chosen_slices(_any(truth), _any(predicted))
    planes = {
        number: display_plane(view.native(number, number + 1)[0]).astype(float)
        for number, _ in chosen
    }
    outlined = [display_plane((_any(truth) | _any(predicted))[number]) for number, _ in chosen]
    crop = crop_about(np.any(outlined, axis=0))
    window = np.quantile([plane[crop] for plane in planes.values()], (0.01, 0.985))
    _, *spacing = view.native_spacing  # of the view's rows and columns, which the display swaps
    return [
        slice_picture(
            planes[number][crop],
            {name: display_plane(mask[number])[crop] for name, mask in truth.items()},
            {name: display_plane(mask[number])[crop] for name, mask in predicted.items()},
            results.colours,
            (float(window[0]), float(window[1])),
            (spacing[1], spacing[0]),
            f"slice {number + 1} of {view.depth}{note}",
        )
        for number, note in chosen
    ]


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


def _any(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.any(list(masks.values()), axis=0)


def _percent(row: Row) -> str:
    return f"{row.dice:.1f}" if row.status == SCORED else row.status
