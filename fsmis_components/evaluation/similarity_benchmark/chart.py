"""Time and temporary memory over the number of prototypes, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fsmis_components.data.atomic import atomic_write
from fsmis_components.evaluation.report.figures import CHART_SETTINGS
from fsmis_components.evaluation.similarity_benchmark.measure import Measured

# Okabe and Ito's colours, which colour-blind readers tell apart, and a mark for each
_LOOKS = (
    ("#000000", "o"),
    ("#cc79a7", "s"),
    ("#e69f00", "^"),
    ("#56b4e9", "v"),
    ("#009e73", "D"),
    ("#0072b2", "P"),
    ("#8a97a3", "X"),
    ("#d55e00", "*"),
)
_LEAST_MIB = 1e-3  # a logarithmic axis has no zero


def draw_chart(rows: Sequence[Measured], path: Path) -> Path | None:
    """Draw a column for each reduction, dtype and pass, at the side and C with most figures.

    Args:
        rows: what was measured.
        path: the PNG.

    Returns:
        The path; None where nothing ran.
    """
    ran = [row for row in rows if row.seconds is not None]
    if not ran:
        return None
    sizes = [(row.case.side, row.case.channels) for row in ran]
    side, channels = max(sorted(set(sizes)), key=sizes.count)
    shown = [row for row in ran if (row.case.side, row.case.channels) == (side, channels)]
    columns = list(dict.fromkeys(_column(row) for row in shown))
    names = list(dict.fromkeys(row.contender for row in rows))
    with matplotlib.rc_context(CHART_SETTINGS):
        figure = Figure(figsize=(1 + 3.2 * max(2, len(columns)), 7), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, len(columns), squeeze=False, sharey="row", sharex=True)
        for column, (upper, lower) in zip(columns, axes.T, strict=True):
            own = [row for row in shown if _column(row) == column]
            upper.set_title(column)
            _lines(upper, own, names, _milliseconds)
            _lines(lower, own, names, _mib)
            lower.set_xlabel("prototypes P")
        axes[0][0].set_ylabel("time (ms)")
        axes[1][0].set_ylabel("temporary memory (MiB)")
        handles = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
        figure.suptitle(f"{side} x {side} positions, C = {channels}", x=0.02, ha="left")
        figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=4)
        figure.tight_layout(rect=(0, 0.08, 1, 0.98))
        return atomic_write(path, lambda unfinished: figure.savefig(unfinished, dpi=150))


def _column(row: Measured) -> str:
    return f"{row.case.reduction}, {row.case.dtype}\n{row.direction}"


def _lines(
    ax: Axes,
    rows: Sequence[Measured],
    names: Sequence[str],
    figure_of: Callable[[Measured], float],
) -> None:
    for index, name in enumerate(names):
        points = sorted(
            (row.case.prototypes, figure_of(row)) for row in rows if row.contender == name
        )
        if points:
            colour, mark = _LOOKS[index % len(_LOOKS)]
            ax.plot(*zip(*points, strict=True), color=colour, marker=mark, ms=5, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sorted({row.case.prototypes for row in rows}))
    for axis in (ax.xaxis, ax.yaxis):
        # plain numbers: the settings of our charts draw no formulas, as 2 to the power of 10
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.tick_params(axis="x", labelrotation=45)


def _milliseconds(row: Measured) -> float:
    return (row.seconds or 0.0) * 1e3


def _mib(row: Measured) -> float:
    return max((row.temporary_bytes or 0) / 2**20, _LEAST_MIB)
