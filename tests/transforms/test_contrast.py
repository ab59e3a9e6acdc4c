import numpy as np
import pytest
import torch

from fsmis_components.transforms.contrast import (
    ContrastParameters,
    ContrastRanges,
    apply_contrast,
    draw_contrast,
)

RANGES = ContrastRanges()


def _slice() -> torch.Tensor:
    """Dark air, then four tissues of 1, 2, 3, 4."""
    image = torch.zeros(1, 20, 20)
    for tissue in range(4):
        image[0, 4 * tissue + 2 : 4 * tissue + 6, 2:18] = tissue + 1.0
    return image


def _tissues(image: torch.Tensor) -> list[float]:
    return [image[0, 4 * tissue + 3, 10].item() for tissue in range(4)]


def test_mean_and_variance_stay() -> None:
    rng = np.random.default_rng(0)
    image = torch.rand(1, 48, 40) ** 2
    mean, std = image.mean(), image.std(correction=0)
    for _ in range(20):
        result = apply_contrast(image, draw_contrast(rng, RANGES))
        assert result.isfinite().all()
        assert not torch.allclose(result, image, atol=1e-3)
        assert (result.mean() - mean).abs() < 1e-4 and (result.std(correction=0) - std).abs() < 1e-3


def test_values_remap_may_swap_tissues() -> None:
    # knots: air 0, then tissue shares 1/4, 1/2, 3/4, 1, which are both quantiles and even steps
    parameters = ContrastParameters(levels=(0.0, 0.8, 0.2, 1.0, 0.5))
    result = apply_contrast(_slice(), parameters)
    air, span = result.min(), result.max() - result.min()
    assert [(value - air) / span for value in _tissues(result)] == pytest.approx(
        [0.8, 0.2, 1.0, 0.5], abs=0.02
    )


def test_air_is_not_turned_into_structure() -> None:
    """Knots lie in the tissue, however much of the slice is air."""
    image = torch.zeros(1, 64, 64)
    image[0, :40] = torch.rand(40, 64, generator=torch.Generator().manual_seed(0)) * 0.02
    image[0, 40:] = torch.linspace(0.3, 1, 64)
    result = apply_contrast(image, ContrastParameters(levels=(0.0, 1.0, 0.0, 1.0)))
    span = result.max() - result.min()
    assert (result[0, :40].max() - result[0, :40].min()) / span < 0.1


def test_values_bias_multiplies_by_a_smooth_field() -> None:
    image = torch.ones(1, 9, 11)
    image[0, 0, 0] = 0  # the darkest voxel stays dark, the rest shows the field
    bias = (0.0, 0.0, 0.5, 0.0)  # exp(0.5 x)
    result = apply_contrast(image, ContrastParameters(bias=bias))
    share = result - result[0, 0, 0]
    ratio = share[0, 4, 10] / share[0, 4, 0]
    assert ratio.item() == pytest.approx(np.exp(1.0), rel=1e-3)
    assert share[0, 8, 3].item() == pytest.approx(share[0, 2, 3].item(), rel=1e-4)


def test_same_parameters_same_bits() -> None:
    image = torch.randn(1, 32, 32)
    rng = np.random.default_rng
    parameters = draw_contrast(rng(3), RANGES)
    assert parameters == draw_contrast(rng(3), RANGES) != draw_contrast(rng(4), RANGES)
    copy, state = image.clone(), torch.get_rng_state()
    first, second = apply_contrast(image, parameters), apply_contrast(image, parameters)
    assert torch.equal(first, second)
    assert torch.equal(image, copy) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, apply_contrast(image, draw_contrast(rng(4), RANGES)))
