from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
from matplotlib.image import imread

from fsmis_components.evaluation.report.slice_picture import outline, slice_picture


def test_outline_by_hand() -> None:
    """A block of 2 x 3 pixels: corners are cut, coordinates are half pixels."""
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    points = {
        tuple(map(int, point.split()))
        for point in re.findall(r"\d+ \d+", outline(mask).strip("MZ"))
    }
    assert points == {(4, 3), (5, 2), (9, 2), (10, 3), (10, 5), (9, 6), (5, 6), (4, 5)}


def test_outline_is_closed_at_the_border_and_around_holes() -> None:
    mask = np.ones((7, 7), bool)
    mask[3, 3] = False
    path = outline(mask)
    assert path.count("M") == path.count("Z") == 2
    assert outline(np.zeros((4, 4), bool)) == ""


def test_picture() -> None:
    plane = np.array([[0.0, 5.0], [10.0, 20.0]])
    mask = np.array([[True, False], [False, False]])
    empty = np.zeros_like(mask)
    html = slice_picture(
        plane,
        {"liver": mask},
        {"liver": empty, "spleen": mask},
        {"liver": "#111111", "spleen": "#222222"},
        (0.0, 10.0),
        (2.0, 3.0),
        "a < b",
    )
    root = ElementTree.fromstring(html)
    svg = root.find("svg")
    assert svg is not None and svg.get("viewBox") == "0 0 6 4"  # millimetres
    image = svg.find("image")
    assert image is not None
    data = (image.get("href") or "").removeprefix("data:image/png;base64,")
    grey = imread(io.BytesIO(base64.b64decode(data)))
    assert grey.shape[:2] == (2, 2)
    np.testing.assert_allclose(grey[..., 0], [[0, 0.5], [1, 1]], atol=0.005)
    predicted = svg.findall("g/g/path")
    assert [path.get("fill") for path in predicted] == ["#222222"]  # what is empty has no path
    assert svg.findall("g/path[@class='label']")
    assert root.findtext("figcaption") == "a < b"


def test_constant_picture() -> None:
    html = slice_picture(np.full((3, 3), 7.0), {}, {}, {}, (7.0, 7.0), (1.0, 1.0), "")
    assert "data:image/png" in html
