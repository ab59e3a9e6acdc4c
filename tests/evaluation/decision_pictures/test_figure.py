from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from made_pairs import block_pairs, tiny_cow, tiny_ips
from matplotlib.figure import Figure
from matplotlib.image import imread

from fsmis_components.evaluation.decision_pictures import METHODS, SlicePair, draw_rows
from fsmis_components.evaluation.decision_pictures.figure import Key, _figure, _runs, _scales
from fsmis_components.evaluation.decision_pictures.marks import Cells
from fsmis_components.evaluation.decision_pictures.panels import (
    MARGIN,
    Panel,
    Row,
    Scale,
    label_plane,
    map_panel,
    mask_panel,
)
from fsmis_components.evaluation.report.figures import CHART_SETTINGS

PLAIN = Scale("viridis", "a cosine")
KEYS = (("#112233", "weak"), ("#445566", "sure"))


def made_row(pair: SlicePair, slices: int = 1, level: float = 1.0) -> Row:
    """Slices, two maps of one scale, a slice, a map of the same scale, a margin, the mask."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(-level, level, (4, 24, 20))
    label, wanted = label_plane(pair.support), label_plane(pair.query)
    cells = (Cells(label, "#112233"),)
    return Row(
        pair,
        (
            *(Panel("Support\nslice", "here", pair.support, label, cells) for _ in range(slices)),
            map_panel("One\nmap", maps[0], PLAIN, wanted),
            map_panel("Two\nmaps", maps[1], PLAIN, wanted),
            Panel("Query\nslice", "there", pair.query, wanted),
            map_panel("Three\nmaps", maps[2], PLAIN, wanted),
            map_panel("The\nmargin", maps[3], MARGIN, wanted),
            mask_panel(pair.query, maps[3], 50.0),
        ),
        50.0,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[SlicePair]:
    return block_pairs(tmp_path_factory.mktemp("scans"))


def legend_words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_row_for_each_structure(pairs: list[SlicePair], tmp_path: Path) -> None:
    rows = [made_row(pair) for pair in pairs]
    picture = imread(draw_rows(tmp_path / "p" / "picture.png", rows, KEYS, "T"))
    assert picture.shape[1] > 1500 and np.ptp(picture[..., 0]) > 0.9
    one, two = (_figure(rows[:count], KEYS, "T", "").get_figheight() for count in (1, 2))
    assert two - one > 2  # inches


def test_words_around_the_panels(pairs: list[SlicePair]) -> None:
    rows = [made_row(pair) for pair in pairs]
    figure = _figure(rows, KEYS, "A title", "A note")
    outside = [text.get_text() for text in figure.texts]
    assert outside[:4] == ["structure_1", "middle third", "structure_2", "middle third"]
    assert outside[4:] == ["A title", "A note"]
    panels = figure.axes[:14]
    assert [axes.get_title() for axes in panels[:7]] == [panel.title for panel in rows[0].panels]
    assert not any(axes.get_title() for axes in panels[7:])
    captions = [axes.texts[0].get_text() for axes in panels]
    assert captions == [panel.caption for row in rows for panel in row.panels]
    assert legend_words(figure) == ["label", "found by the network", "weak"]


def test_one_scale_for_all_rows(pairs: list[SlicePair]) -> None:
    rows = [made_row(pair, level=level) for pair, level in zip(pairs, (1.0, 3.0), strict=True)]
    scales = _scales(rows)
    assert -3 <= scales[PLAIN].vmin < -2.9 and 2.9 < scales[PLAIN].vmax <= 3
    figure = _figure(rows, KEYS, "", "")
    for column, scale in ((1, PLAIN), (2, PLAIN), (4, PLAIN), (5, MARGIN)):
        for row in range(2):
            norm = figure.axes[row * 7 + column].images[0].norm
            assert (norm.vmin, norm.vmax) == (scales[scale].vmin, scales[scale].vmax)


def test_a_margin_is_scaled_by_where_it_decides(pairs: list[SlicePair]) -> None:
    label = label_plane(pairs[0].query)
    margin = np.where(label, -2.0, -90.0)  # -90: the air around a body
    panel = map_panel("The\nmargin", margin, MARGIN, label)
    scale = _scales([Row(pairs[0], (panel,), 0.0)])[MARGIN]
    assert (scale.vmin, scale.vmax) == (-2.0, 2.0)


def test_a_bar_for_each_run_of_a_scale(pairs: list[SlicePair]) -> None:
    row = made_row(pairs[0])
    wanted = [(0, 1, None), (1, 2, PLAIN), (3, 1, None), (4, 1, PLAIN), (5, 1, MARGIN)]
    assert _runs(row) == [*wanted, (6, 1, None)]
    figure = _figure([row], KEYS, "", "")
    bars = figure.axes[7:]
    assert [bar.get_xlabel() for bar in bars] == [PLAIN.meaning, PLAIN.meaning, MARGIN.meaning]
    for bar, (first, count) in zip(bars, ((1, 2), (4, 1), (5, 1)), strict=True):
        span, left, right = (
            axes.get_position()
            for axes in (bar, figure.axes[first], figure.axes[first + count - 1])
        )
        assert left.x0 < span.x0 < left.x1 and right.x0 < span.x1 < right.x1


def drawn_rows(pair: SlicePair, kind: str) -> tuple[list[Row], Sequence[Key], str]:
    if kind in ("one slice", "three slices"):
        return [made_row(pair, 1 if kind == "one slice" else 3)], KEYS, "One line\nand another"
    network = tiny_cow() if kind == "CoW" else tiny_ips(area_ratio=0.0)
    method = METHODS[kind]
    return [method.row(network, pair)], method.keys, f"One line\n{method.note}"


@pytest.mark.parametrize("kind", ["one slice", "three slices", *METHODS])
def test_no_words_overlap(pairs: list[SlicePair], kind: str) -> None:
    rows, keys, note = drawn_rows(pairs[0], kind)
    with matplotlib.rc_context(CHART_SETTINGS):
        figure = _figure(rows, keys, "A title", note)
        figure.canvas.draw()
    count = len(rows[0].panels)
    panels, bars = figure.axes[:count], figure.axes[count:]
    boxes = [bar.get_tightbbox() for bar in bars]
    boxes.append(figure.legends[0].get_window_extent())
    words = [*figure.texts, *(axes.title for axes in panels)]
    boxes += [text.get_window_extent() for text in (*words, *(axes.texts[0] for axes in panels))]
    page = figure.bbox
    for number, box in enumerate(boxes):
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[:number])
    for axes in panels:  # a note stays on its panel
        for text in axes.texts[1:]:
            inner, outer = text.get_window_extent(), axes.get_window_extent()
            assert outer.x0 < inner.x0 and inner.x1 < outer.x1
