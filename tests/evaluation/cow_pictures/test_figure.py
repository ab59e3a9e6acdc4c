from __future__ import annotations

from pathlib import Path

import numpy as np
from made_pairs import block_pairs, tiny_cow
from matplotlib.figure import Figure
from matplotlib.image import imread

from fsmis_components.data.geometry import display_plane
from fsmis_components.evaluation.cow_pictures import decide, draw_decisions
from fsmis_components.evaluation.cow_pictures.figure import TITLES, _figure, _points, _scales


def test_a_row_for_each_structure(tmp_path: Path) -> None:
    network = tiny_cow()
    decisions = [decide(network, pair) for pair in block_pairs(tmp_path)]
    picture = imread(draw_decisions(tmp_path / "p" / "cow.png", decisions, "T"))
    assert picture.shape[1] > 1600 and np.ptp(picture[..., 0]) > 0.9
    one, two = (_figure(decisions[:count], "T", "").get_figheight() for count in (1, 2))
    assert two - one > 2  # inches


def test_words_say_what_is_seen(tmp_path: Path) -> None:
    decisions = [decide(tiny_cow(), pair) for pair in block_pairs(tmp_path)]
    figure = _figure(decisions, "A title", "A note")
    outside = [text.get_text() for text in figure.texts]
    assert outside[:4] == ["structure_1", "middle third", "structure_2", "middle third"]
    assert outside[4:] == ["A title", "A note"]
    panels = figure.axes[: 2 * len(TITLES)]
    assert tuple(axes.get_title() for axes in panels[: len(TITLES)]) == TITLES
    captions = [axes.texts[0].get_text() for axes in panels]
    assert captions[0].startswith("case 1, slice 7: Dice ")
    assert captions[1] == (
        f"{decisions[0].missed.sum()} px missed, {decisions[0].false.sum()} px wrong"
    )
    assert captions[7] == f"case 2, slice 7: Dice {decisions[0].dice:.1f} %"
    assert captions[15] == f"case 2, slice 7: Dice {decisions[1].dice:.1f} %"


def test_one_scale_for_all_rows(tmp_path: Path) -> None:
    decisions = [decide(tiny_cow(), pair) for pair in block_pairs(tmp_path)]
    scales = _scales(decisions)
    assert scales["margin"].vmin == -scales["margin"].vmax
    fused = np.concatenate([[d.foreground, d.background] for d in decisions])
    assert fused.min() <= scales["fused"].vmin < scales["fused"].vmax <= fused.max()
    figure = _figure(decisions, "", "")
    for column, name in ((3, "similarity"), (4, "fused"), (5, "fused"), (6, "margin")):
        for row in range(2):
            norm = figure.axes[row * len(TITLES) + column].images[0].norm
            assert (norm.vmin, norm.vmax) == (scales[name].vmin, scales[name].vmax)


def test_points_turn_with_the_slice() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1, 4] = True
    axes = Figure().add_subplot()
    _points(axes, np.array([[1.0, 4.0]]), mask.shape, "o", "red")
    across, down = axes.collections[0].get_offsets()[0]
    assert display_plane(mask)[int(down), int(across)]


def test_a_network_without_self_prediction_is_drawn(tmp_path: Path) -> None:
    decision = decide(tiny_cow(self_prediction=False), block_pairs(tmp_path)[0])
    captions = [axes.texts[0].get_text() for axes in _figure([decision], "", "").axes[:3]]
    assert captions == ["case 1, slice 7", "0 px missed, 0 px wrong", "at no place"]
