from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
from block_scans import AFFINE, block_image, block_label

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import Volume
from fsmis_components.reporting.drawing import save_overlay
from fsmis_components.support import Structure

STRUCTURES = (Structure("one", 1, "#ff0000"), Structure("two", 2, "#00ff00"))


def coloured(folder: Path, label: np.ndarray) -> tuple[int, int]:
    """Return the number of red and of green pixels of an overlay, without its legend."""
    image = Volume(block_image(), AFFINE)
    path = save_overlay(folder / "a.png", image, label, STRUCTURES, SliceGrid(2, 1.0, 24), "a")
    pixels = matplotlib.image.imread(path)[45:-45, :, :3]
    assert pixels.shape[0] % (20 * 12) == 0 and pixels.shape[1] == 4 * 24 * 12
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1] < 0.1) & (pixels[..., 2] < 0.1)
    green = (pixels[..., 1] > 0.9) & (pixels[..., 0] < 0.1) & (pixels[..., 2] < 0.1)
    return int(red.sum()), int(green.sum())


def test_outlines_are_drawn_in_their_colours(tmp_path: Path) -> None:
    red, green = coloured(tmp_path / "o", block_label())
    assert red > 200 and green > 200
    red, green = coloured(tmp_path / "o", block_label({2: 2}))
    assert red == 0 and green > 200
    assert coloured(tmp_path / "o", block_label() * 0) == (0, 0)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.png"]
