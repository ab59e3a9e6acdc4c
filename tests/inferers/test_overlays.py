from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
from block_scans import AFFINE, block_image, block_label

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.overlays import chosen_slices, held_values, save_overlay
from fsmis_components.support import Structure

STRUCTURES = (Structure("one", 1, "#ff0000"), Structure("two", 2, "#00ff00"))


def test_slices_are_spread_over_the_structures() -> None:
    held = np.zeros(40, bool)
    held[10:33] = True
    chosen = chosen_slices(held)
    assert len(chosen) == 12 and chosen[0] == 10 and chosen[-1] == 32
    assert chosen == sorted(set(chosen))
    assert chosen_slices(held[:11]) == [10]
    assert chosen_slices(~held & False)[-1] == 39  # nothing found: the whole scan


def test_which_slice_holds_what() -> None:
    labels = np.zeros((5, 4, 40), np.uint8)
    labels[2, 1, 10:33] = 7
    labels[4, 3, 38] = 2
    turned = np.diag([1.0, 1.0, -4.0, 1.0])  # slices run from superior to inferior
    held = held_values(SliceView(Volume(labels, turned), SliceGrid(2, None, 8)), [7, 2, 3])
    assert held.shape == (40, 3)
    assert np.flatnonzero(held[:, 0]).tolist() == list(range(7, 30))
    assert np.flatnonzero(held[:, 1]).tolist() == [1] and not held[:, 2].any()


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


def test_outlines_lie_on_what_they_outline(tmp_path: Path) -> None:
    image = Volume(block_image(), AFFINE)
    label = block_label({2: 1})
    path = save_overlay(tmp_path / "a.png", image, label, STRUCTURES, SliceGrid(2, 1.0, 24), "a")
    pixels = matplotlib.image.imread(path)[45:-45, :, :3]  # without title and legend
    scale = 12  # 24 pixels of a slice become 288
    assert pixels.shape[:2] == (2 * 20 * scale, 4 * 24 * scale)  # slices 4 to 9 in two rows
    red = (pixels[..., 0] > 0.9) & (pixels[..., 1] < 0.1)
    # block 2 has the columns 14 to 19 and the rows 8 to 15 from the patient's right and posterior
    across = np.array([24 - 20, 24 - 14]) * scale
    down = np.array([20 - 16, 20 - 8]) * scale
    rows, columns = np.nonzero(red[: 20 * scale, : 24 * scale])
    for found, expected in ((columns, across), (rows, down)):
        assert np.abs([found.min(), found.max()] - expected).max() <= scale
    inside = pixels[down[0] : down[1], across[0] : across[1]]
    assert np.median(inside) > 0.9 and np.median(pixels) < 0.1
