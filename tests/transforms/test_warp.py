import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from fsmis_components.transforms.warp import (
    WarpParameters,
    WarpRanges,
    apply_warp,
    draw_warp,
    gaussian_blur,
)


def _disc(height: int, width: int, x: float, y: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)[None]


def _centre(mask: torch.Tensor) -> tuple[float, float]:
    """(x, y) of the mask's mass."""
    _, rows, columns = torch.nonzero(mask, as_tuple=True)
    return columns.float().mean().item(), rows.float().mean().item()


def test_values_translation_moves_right_and_down() -> None:
    image = torch.arange(1.0, 13.0).view(1, 3, 4)
    masks = torch.zeros(1, 3, 4)
    masks[0, 0, 1] = 1
    parameters = WarpParameters(translation=(1, 2))
    warped, warped_masks = apply_warp(image, masks, parameters)
    expected = torch.tensor([[[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3]]])
    assert torch.allclose(warped, expected, atol=1e-5)
    assert warped_masks.nonzero().tolist() == [[0, 2, 2]]
    dark, _ = apply_warp(image - 5, masks, parameters, "minimum")
    assert dark[0, 0, 0] == -4


def test_values_quarter_turn_is_counterclockwise() -> None:
    image = torch.arange(9.0).view(1, 3, 3)
    warped, _ = apply_warp(image, image, WarpParameters(rotation=90))
    assert torch.allclose(warped[0], torch.rot90(image[0]), atol=1e-4)


def test_values_zoom_about_the_centre() -> None:
    disc = _disc(64, 48, 23.5, 31.5, 8)
    _, (large,) = apply_warp(disc.float(), disc, WarpParameters(zoom=1.5))
    assert large.sum().item() == pytest.approx(1.5**2 * disc.sum().item(), rel=0.05)
    assert _centre(large[None]) == pytest.approx((23.5, 31.5), abs=0.1)


def test_values_shear_about_origin_also_shifts() -> None:
    disc = _disc(65, 65, 32, 32, 6)
    tangent = math.tan(math.radians(10))
    centre = apply_warp(disc.float(), disc, WarpParameters(shear=10))[1]
    origin = apply_warp(disc.float(), disc, WarpParameters(shear=10, shear_about="origin"))[1]
    assert _centre(centre) == pytest.approx((32, 32), abs=0.1)
    assert _centre(origin) == pytest.approx((32 + 32 * tangent, 32), abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_mask_follows_image(seed: int) -> None:
    disc = _disc(96, 96, 40, 52, 14)
    strong = WarpRanges(rotation=30, translation=30, shear=30, zoom=(0.8, 1.3), elastic_alpha=20)
    parameters = draw_warp(np.random.default_rng(seed), strong)
    image, masks = apply_warp(disc.float() * 3, disc, parameters)
    assert masks.any() and not torch.equal(masks, disc)
    assert torch.equal(masks, image >= 1.5)


def test_same_parameters_same_bits() -> None:
    image, masks = torch.randn(1, 40, 40), torch.rand(3, 40, 40) > 0.5
    rng = np.random.default_rng
    parameters = draw_warp(rng(7), WarpRanges())
    assert parameters == draw_warp(rng(7), WarpRanges()) != draw_warp(rng(8), WarpRanges())
    state = torch.get_rng_state()
    first, second = apply_warp(image, masks, parameters), apply_warp(image, masks, parameters)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(state, torch.get_rng_state())  # nobody else's random numbers are used up
    one, other = (
        apply_warp(image, masks, WarpParameters(elastic_alpha=10, elastic_seed=seed))[0]
        for seed in (0, 1)
    )
    assert not torch.equal(one, other)


def test_blur_is_that_of_scipy() -> None:
    maps = torch.rand(2, 17, 33, dtype=torch.float64)
    expected = ndimage.gaussian_filter(maps.numpy(), (0, 2, 2), mode="mirror", radius=(0, 6, 6))
    assert np.allclose(gaussian_blur(maps, 2.0, 13).numpy(), expected, atol=1e-12)
