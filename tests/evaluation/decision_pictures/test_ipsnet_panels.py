from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from made_pairs import block_pairs, tiny_ips

from fsmis_components.evaluation.decision_pictures.ipsnet import ANSWERS, ips_panels, ips_row
from fsmis_components.evaluation.decision_pictures.ipsnet_decision import decide_ips
from fsmis_components.evaluation.decision_pictures.marks import Cells
from fsmis_components.evaluation.decision_pictures.panels import MARGIN, ColourMap


def test_panels_show_the_steps(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    decision = decide_ips(tiny_ips(), pair)
    own = decision.own
    assert own is not None
    panels = ips_panels(decision)
    assert panels[0].shown is pair.support and panels[0].caption == "case 1, slice 7: 48 px"
    steps = (decision.guidance, decision.mean_map, decision.peak_map, decision.intermediate)
    for panel, values in zip(panels[1:5], steps, strict=True):
        assert isinstance(panel.shown, ColourMap) and panel.shown.scale == ANSWERS
        assert np.array_equal(panel.shown.values, values)
    background, foreground = panels[5].marks
    assert isinstance(foreground, Cells) and foreground.mask is own.foreground
    assert isinstance(background, Cells) and background.mask is own.background
    assert foreground.colour != background.colour
    counts = own.num_cells
    assert panels[5].caption == f"{counts[0]} foreground, {counts[1]} background"
    assert panels[6].shown == ColourMap(own.margin, ANSWERS)
    assert panels[7].shown == ColourMap(decision.decided, MARGIN)
    assert panels[8].caption == f"case 2, slice 7: Dice {decision.dice:.1f} %"
    assert len(panels) == 9


def test_the_row_tells_where_own_prototypes_are_not_trusted(tmp_path: Path) -> None:
    decision = decide_ips(tiny_ips(), block_pairs(tmp_path)[0])
    assert decision.own is not None
    for trusted in (True, False):
        panels = ips_panels(replace(decision, own=replace(decision.own, trusted=trusted)))
        notes = [panel.note for panel in panels if panel.note]
        assert notes == ([] if trusted else ["area unlike the support's:\nown prototypes not used"])


def test_remarks(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    for settings, words in (
        ({"area_ratio": 1000.0}, "the query's own prototypes trusted"),
        ({"area_ratio": 0.0}, "the query's own prototypes not trusted"),
        ({"self_learning": False}, "no self-learning"),
    ):
        assert ips_row(tiny_ips(**settings), pair).remark == words


def test_what_a_network_lacks_has_no_panel(tmp_path: Path) -> None:
    pair = block_pairs(tmp_path)[0]
    settings = {"deep": "none", "interaction": "mean", "self_learning": False}
    titles = [panel.title for panel in ips_row(tiny_ips(**settings), pair).panels]
    assert len(titles) == 5 and titles[3] == "Final margin,\nno self-learning"
    words = " ".join(titles)
    assert "S_mean" in words and "S_peak" not in words and "S_self" not in words
