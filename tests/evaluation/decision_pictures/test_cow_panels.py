from __future__ import annotations

from pathlib import Path

import numpy as np
from made_pairs import block_pairs, tiny_cow

from fsmis_components.evaluation.decision_pictures.cow import (
    FUSED,
    SIMILARITY,
    cow_panels,
    cow_row,
)
from fsmis_components.evaluation.decision_pictures.cow_decision import decide_cow
from fsmis_components.evaluation.decision_pictures.panels import MARGIN, ColourMap


def test_panels_show_the_steps(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    decision = decide_cow(tiny_cow(), pair)
    panels = cow_panels(decision)
    assert [panel.shown for panel in panels[:3]] == [pair.support] * 3
    maps = [panel.shown for panel in panels[3:7]]
    wanted = (
        (decision.similarity, SIMILARITY),
        (decision.foreground, FUSED),
        (decision.background, FUSED),
        (decision.margin, MARGIN),
    )
    for shown, (values, scale) in zip(maps, wanted, strict=True):
        assert isinstance(shown, ColourMap) and shown.scale == scale
        assert np.array_equal(shown.values, values)
    label, own = pair.support.mask[0, 0].numpy() > 0, pair.query.mask[0, 0].numpy() > 0
    for number, panel in enumerate(panels):
        assert np.array_equal(panel.label, label if number < 3 else own)


def test_words_say_what_is_seen(tmp_path: Path) -> None:
    row = cow_row(tiny_cow(), block_pairs(tmp_path)[0])
    captions = [panel.caption for panel in row.panels]
    missed, false = (int(mark.mask.sum()) for mark in row.panels[1].marks)  # type: ignore[attr-defined]
    assert missed + false > 0
    assert captions[0].startswith("case 1, slice 7: Dice ")
    assert captions[1] == f"{missed} px missed, {false} px wrong"
    assert captions[7] == f"case 2, slice 7: Dice {row.dice:.1f} %"
    assert row.remark == ""


def test_a_network_without_self_prediction(tmp_path: Path) -> None:
    row = cow_row(tiny_cow(self_prediction=False), block_pairs(tmp_path)[0])
    captions = [panel.caption for panel in row.panels[:3]]
    assert captions == ["case 1, slice 7", "0 px missed, 0 px wrong", "at no place"]
    assert row.panels[0].marks == ()
