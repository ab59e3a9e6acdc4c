from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import matplotlib

from fsmis_components.evaluation.report.figures import (
    CHART_SETTINGS,
    PROTOCOL_COLOURS,
    embedded,
    new_figure,
    shortened,
)
from fsmis_components.evaluation.summary import PROTOCOLS


def test_shortened_keeps_begin_and_end() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcde\u2026hijk"
    assert shortened("a network, Setting 1", 11) == "a net\u2026ing 1"


def test_every_protocol_has_a_colour_of_its_own() -> None:
    assert set(PROTOCOL_COLOURS) == set(PROTOCOLS)
    assert len(set(PROTOCOL_COLOURS.values())) == len(PROTOCOLS)


def test_embedded_chart() -> None:
    with matplotlib.rc_context(CHART_SETTINGS):
        figure = new_figure(3.0, left=0.5, bottom=0.6, right=0.3, top=0.9)
        axes = figure.add_subplot()
        axes.set_title("a $x_1$ <b>")
    box = axes.get_position()
    assert round(box.y0 * 3.0, 6) == 0.6 and round((1 - box.y1) * 3.0, 6) == 0.9
    html = embedded(figure, 'a "b" <c>')
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in html
    data = re.search(r"base64,([^\"]+)", html)
    assert data is not None
    svg = base64.b64decode(data[1])
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox", "").split()[2:] == ["309.6", "216"]  # 4.3 x 3 inches in points
    assert b"<dc:date>" not in svg
