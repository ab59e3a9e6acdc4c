from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
from block_scans import AFFINE, block_image, block_label

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.intensity import Normalisation
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


def test_ct_is_shown_by_its_window(tmp_path: Path) -> None:
    """Liver and spleen, 60 units apart, beside air and bone."""
    image = np.full((24, 20, 12), -1000.0)
    image[4:20, 4:16], image[12:20, 4:16] = 40.0, 100.0
    image[4:20, 15] = 1500.0
    scan = Volume(np.round(image).astype(np.int16), AFFINE)
    greys = {}
    for kind, rule in (("plain", None), ("window", Normalisation("ct"))):
        grid, nothing = SliceGrid(2, 1.0, 24), np.zeros(image.shape, np.uint8)
        path = save_overlay(tmp_path / f"{kind}.png", scan, nothing, STRUCTURES, grid, "a", rule)
        pixels = matplotlib.image.imread(path)[45:-45, :, 0]
        levels, counts = np.unique((255 * pixels).round(), return_counts=True)
        greys[kind] = np.sort(levels[np.argsort(counts)[-4:]])  # air, two organs, bone
    assert np.diff(greys["plain"])[1] < 15 and np.diff(greys["window"])[1] > 30
