import numpy as np
import pytest
import torch

from fsmis_components.inferers.encoded_slices import ABSENT
from fsmis_components.inferers.intensity_model import INTENSITY, IntensityModel

SIZE = 64
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(row: float, column: float, radius: float) -> np.ndarray:
    return (_ROWS - row) ** 2 + (_COLUMNS - column) ** 2 <= radius**2


THERE = disc(30, 32, 14)


def scan(contrast: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (3, H, W) of a disc, and margins (3, 1, H, W) that expect it lower and smaller."""
    noise = np.random.default_rng(3).normal(0, 0.25, (3, SIZE, SIZE))
    image = torch.tensor(contrast * (THERE + noise), dtype=torch.float32)
    distance = np.hypot(_ROWS - 35, _COLUMNS - 32)
    margins = torch.tensor(np.clip(0.3 * (10 - distance), -8, 8), dtype=torch.float32)
    return image, margins.expand(3, 1, -1, -1).clone()


def dice(margins: torch.Tensor) -> float:
    mask = margins[1, 0].numpy() > 0
    return 2 * float((mask & THERE).sum()) / float(mask.sum() + THERE.sum())


@pytest.mark.parametrize("contrast", [1.0, -400.0])
def test_a_mask_follows_the_scans_own_intensities(contrast: float) -> None:
    image, margins = scan(contrast)
    model = IntensityModel.learn([(image, margins)], 2)
    assert model is not None
    refined = model.add_to(margins.clone(), image)
    assert dice(margins) < 0.8 and dice(refined) > 0.95
    # the level of the structure speaks for it, that of the background against it
    bright = model.evidence[0, -1] if contrast > 0 else model.evidence[0, 0]
    assert bright > 2 and model.evidence[0].min() < -1
    # far away nothing changes, however alike it looks
    far = margins[:, 0] <= INTENSITY.near
    assert far.any() and torch.equal(refined[:, 0][far], margins[:, 0][far])


def test_batches_of_a_scan_are_one_scan() -> None:
    image, margins = scan()
    whole = IntensityModel.learn([(image, margins)], 2)
    parts = IntensityModel.learn([(image[:2], margins[:2]), (image[2:], margins[2:])], 2)
    assert whole is not None and parts is not None
    assert torch.equal(whole.edges, parts.edges) and torch.equal(whole.evidence, parts.evidence)


def test_an_image_without_contrast_says_nothing() -> None:
    _, margins = scan()
    image = torch.full((3, SIZE, SIZE), 7.0)
    model = IntensityModel.learn([(image, margins)], 2)
    assert model is not None
    assert torch.allclose(model.add_to(margins.clone(), image), margins, atol=1e-5)


def test_few_pixels_say_little() -> None:
    image, margins = scan()
    margins[:, 0] = torch.where(torch.from_numpy(disc(30, 32, 2)), 4.0, -4.0)
    model = IntensityModel.learn([(image, margins)], 2)
    assert model is not None and model.evidence.abs().max() < 1


def test_a_structure_that_is_absent_stays_so() -> None:
    image, margins = scan()
    both = torch.cat([margins, torch.full_like(margins, ABSENT)], 1)
    model = IntensityModel.learn([(image, both)], 2)
    assert model is not None
    refined = model.add_to(both.clone(), image)
    assert torch.equal(refined[:, 1], both[:, 1]) and dice(refined) > 0.95
    assert IntensityModel.learn([(image, torch.full_like(margins, ABSENT))], 2) is None


def test_large_scans_are_learned_from_more_sparsely() -> None:
    for slices in (36, 145, 1000, 4000):
        pixels = slices * 256 * 256
        stride = INTENSITY.stride(pixels)
        assert stride >= 2 and pixels / stride**2 <= INTENSITY.pixels
        assert stride == 2 or pixels / (stride - 1) ** 2 > INTENSITY.pixels
