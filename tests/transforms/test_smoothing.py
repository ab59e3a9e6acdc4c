import numpy as np
import torch
from scipy import ndimage

from fsmis_components.transforms.smoothing import gaussian_blur


def test_values_match_scipy() -> None:
    maps = torch.rand(2, 17, 33, dtype=torch.float64)
    expected = ndimage.gaussian_filter(maps.numpy(), (0, 2, 2), mode="mirror", radius=(0, 6, 6))
    assert np.allclose(gaussian_blur(maps, 2.0, 13).numpy(), expected, atol=1e-12)


def test_constant_stays() -> None:
    assert torch.allclose(gaussian_blur(torch.ones(1, 9, 9), 5.0, 17), torch.ones(1, 9, 9))
