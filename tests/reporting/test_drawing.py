from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from block_scans import AFFINE, block_image, block_label
from PIL import Image

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.data.volumes import Volume
from fsmis_components.reporting.drawing import MOST_SLICES, SIDE, save_overlay, save_sheets
from fsmis_components.support import Structure

STRUCTURES = (Structure("one", 1, "#ff0000"), Structure("two", 2, "#00ff00"))
AXIAL = SliceGrid(2, 1.0, 24)


def coloured(folder: Path, label: np.ndarray) -> tuple[int, int]:
    """Return the number of red and of green pixels of an overlay, without its legend."""
    image = Volume(block_image(), AFFINE)
    path = save_overlay(folder / "a.png", image, label, STRUCTURES, AXIAL, "a")
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
        nothing = np.zeros(image.shape, np.uint8)
        path = save_overlay(tmp_path / f"{kind}.png", scan, nothing, STRUCTURES, AXIAL, "a", rule)
        pixels = matplotlib.image.imread(path)[45:-45, :, 0]
        levels, counts = np.unique((255 * pixels).round(), return_counts=True)
        greys[kind] = np.sort(levels[np.argsort(counts)[-4:]])  # air, two organs, bone
    assert np.diff(greys["plain"])[1] < 15 and np.diff(greys["window"])[1] > 30


def sheets(
    folder: Path, image: Volume, label: np.ndarray, modality: str = "mr", grid: SliceGrid = AXIAL
) -> tuple[np.ndarray, np.ndarray, int]:
    """What a viewer gets: grey (h, w), colours with opacity (h, w, 4), slices of the scan."""
    paths = folder / "scans" / "a.jpg", folder / "masks" / "a.png"
    depth = save_sheets(*paths, image, label, STRUCTURES, grid, Normalisation(modality))
    grey, masks = (np.asarray(Image.open(path)) for path in paths)
    assert grey.shape == masks.shape[:2]
    return grey, masks, depth


def tile(sheet: np.ndarray, number: int, height: int, width: int) -> np.ndarray:
    top, left = number // 8 * height, number % 8 * width
    return sheet[top : top + height, left : left + width]


def test_every_slice_stands_where_the_viewer_looks_for_it(tmp_path: Path) -> None:
    """A mask in one slice alone, at the patient's right and front: at the left and the top."""
    for number in (0, 7, 8, 11):
        label = np.zeros_like(block_label())
        label[16:22, 14:18, number] = 2
        grey, masks, depth = sheets(tmp_path, Volume(block_image(), AFFINE), label)
        assert depth == 12 and grey.shape == (2 * 20, 8 * 24)
        filled = [bool(tile(masks, n, 20, 24).any()) for n in range(16)]
        assert filled == [n == number for n in range(16)]
        expected = np.zeros((20, 24), bool)
        expected[2:6, 2:8] = True
        shown = tile(masks, number, 20, 24)
        np.testing.assert_array_equal(shown[..., 3] > 0, expected)
        assert (shown[expected][:, :3] == (0, 255, 0)).all()
        # the border is opaque, the inside lets the scan through
        assert (shown[2, 2:8, 3] == 255).all() and 0 < shown[3, 4, 3] < 128


def test_the_grey_sheet_shows_the_scan(tmp_path: Path) -> None:
    image = block_image()
    grey, _, _ = sheets(tmp_path, Volume(image, AFFINE), block_label())
    for number in (3, 5, 10):
        upright = image[::-1, ::-1, number].T
        shown = tile(grey, number, 20, 24)
        assert np.corrcoef(upright.ravel(), shown.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("shape", "spacing", "spacing_of_grid", "expected"),
    [
        # no larger than the bound, square in millimetres
        ((500, 250, 2), (1.0, 1.0, 5.0), 1.0, (SIDE // 2, 2 * SIDE)),
        ((100, 100, 2), (2.0, 1.0, 5.0), 1.0, (50, 2 * 100)),
        # a header that is not trusted
        ((100, 100, 2), (2.0, 1.0, 5.0), None, (100, 2 * 100)),
        # 100 slices: every one and a half
        ((16, 8, 100), (1.0, 1.0, 5.0), 1.0, (8 * 8, 8 * 16)),
    ],
)
def test_slices_are_small_and_few_and_keep_their_proportions(
    tmp_path: Path,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    spacing_of_grid: float | None,
    expected: tuple[int, int],
) -> None:
    label = np.zeros(shape, np.uint8)
    label[..., -1] = 1
    image = Volume(np.random.default_rng(0).random(shape), np.diag([*spacing, 1.0]))
    grid = SliceGrid(2, spacing_of_grid, 64)
    grey, masks, depth = sheets(tmp_path, image, label, grid=grid)
    assert grey.shape == expected and depth == shape[2]
    count = min(depth, MOST_SLICES)
    columns = min(count, 8)
    height, width = expected[0] // (count // columns), expected[1] // columns
    filled = [bool(tile(masks, n, height, width).any()) for n in range(count)]
    assert filled == [n == count - 1 for n in range(count)]  # the last slice is always there
