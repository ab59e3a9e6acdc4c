from __future__ import annotations

from pathlib import Path

import numpy as np
from made_pairs import block_pairs
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure

from fsmis_components.data.geometry import display_plane
from fsmis_components.evaluation.decision_pictures.marks import FOUND, Area, Cells, Points
from fsmis_components.evaluation.decision_pictures.panels import (
    MARGIN,
    ColourMap,
    Panel,
    map_panel,
    mask_panel,
)


def test_the_caption_of_a_map_by_hand() -> None:
    values, label = np.array([[1.0, 2.0], [4.0, -1.0]]), np.array([[True, True], [False, False]])
    assert map_panel("T", values, MARGIN, label).caption == "mean inside 1.50, outside 1.50"
    assert map_panel("T", values, MARGIN, np.zeros((2, 2), bool)).caption == "mean 1.50"


def test_the_mask_is_where_the_margin_is_positive(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    margin = np.full((24, 20), -1.0)
    margin[3:5, 6:9] = 0.5
    (mark,) = mask_panel(pair.query, margin, 12.34).marks
    assert isinstance(mark, Area) and mark.mask.sum() == 6 and mark.mask[3:5, 6:9].all()


def test_a_map_is_drawn_by_its_scale() -> None:
    values = np.array([[1.0, 2.0, 0.0], [4.0, -1.0, 0.0]])
    scales = {MARGIN: Normalize(-3, 3)}
    axes = Figure().add_subplot()
    label = np.zeros((2, 3), bool)
    Panel("T", "below", ColourMap(values, MARGIN), label, note="a note").draw(axes, scales)
    (image,) = axes.images
    assert np.array_equal(image.get_array(), display_plane(values))
    assert image.norm is scales[MARGIN] and image.get_cmap().name == MARGIN.colours
    assert [text.get_text() for text in axes.texts] == ["below", "a note"]


def test_marks_turn_with_the_slice() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1, 4] = True
    axes = Figure().add_subplot()
    Points(np.array([[1.0, 4.0]]), mask.shape, "o", "red").draw(axes)
    across, down = axes.collections[0].get_offsets()[0]
    assert display_plane(mask)[int(down), int(across)]
    Cells(mask, FOUND, 0.4).draw(axes)
    drawn = axes.images[0].get_array()
    assert tuple(drawn[int(down), int(across)]) == to_rgba(FOUND, 0.4)
    assert drawn[..., 3].astype(bool).sum() == 1


def test_an_area_without_a_border_has_no_line() -> None:
    for whole in (True, False):
        axes = Figure().add_subplot()
        Area(np.full((4, 4), whole), FOUND).draw(axes)
        assert len(axes.images) == 1 and not axes.collections
