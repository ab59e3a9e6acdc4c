from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
from block_scans import AFFINE, block_image, block_label

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.overlays import chosen_slices, save_overlay
from fsmis_components.support import Structure

STRUCTURES = (Structure("one", 1, "#ff0000"), Structure("two", 2, "#00ff00"))


def test_slices_are_spread_over_the_structures() -> None:
    labels = np.zeros((40, 4, 4), np.uint8)
    labels[10:33, 1, 1] = 7
    chosen = chosen_slices(labels, [7])
    assert len(chosen) == 12 and chosen[0] == 10 and chosen[-1] == 32
    assert chosen == sorted(set(chosen))
    assert chosen_slices(labels[:11], [7]) == [10]
    assert chosen_slices(labels, [3])[-1] == 39  # nothing found: the whole scan


def test_outlines_are_drawn_in_their_colours(tmp_path: Path) -> None:
    image = Volume(block_image(), AFFINE)
    grid = SliceGrid(2, 1.0, 24)

    def coloured(label: np.ndarray) -> tuple[int, int]:
        path = save_overlay(tmp_path / "o" / "a.png", image, label, STRUCTURES, grid, "a")
        pixels = matplotlib.image.imread(path)[..., :3]
        body = pixels[: int(0.9 * len(pixels))]  # without the legend
        red = (body[..., 0] > 0.9) & (body[..., 1] < 0.1) & (body[..., 2] < 0.1)
        green = (body[..., 1] > 0.9) & (body[..., 0] < 0.1) & (body[..., 2] < 0.1)
        return int(red.sum()), int(green.sum())

    red, green = coloured(block_label())
    assert red > 200 and green > 200
    red, green = coloured(block_label({2: 2}))
    assert red == 0 and green > 200
    assert coloured(block_label() * 0) == (0, 0)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.png"]
