from __future__ import annotations

import hashlib

import torch

from fsmis_components.support.encode import draw_seeds


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 1, 5, 7), (torch.rand(3, 2, 5, 7) > 0.5).float()


def test_values() -> None:
    image, mask = sample()
    seeds = draw_seeds(image, mask)
    assert seeds.shape == (3, 2) and seeds.dtype == torch.int64
    content = image[1, 0].numpy().tobytes() + mask[1, 1].to(torch.uint8).numpy().tobytes()
    first = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    assert seeds[1, 1].item() == first >> 1
    assert int(seeds.min()) >= 0 and len(seeds.unique()) == 6


def test_depends_on_the_slice_and_its_mask_alone() -> None:
    image, mask = sample()
    seeds = draw_seeds(image, mask)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(draw_seeds(image[order], mask[order].flip(1)), seeds[order].flip(1))
    assert torch.equal(draw_seeds(image[1:2], mask[1:2]), seeds[1:2])
    strided = image.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(draw_seeds(strided, mask.bool()), seeds)


def test_one_pixel_changes_it() -> None:
    image, mask = sample()
    seeds = draw_seeds(image, mask)
    other_image, other_mask = image.clone(), mask.clone()
    other_image[0, 0, 2, 3] += 1e-6
    other_mask[1, 0, 4, 6] = 1 - other_mask[1, 0, 4, 6]
    changed = draw_seeds(other_image, other_mask) != seeds
    assert changed.tolist() == [[True, True], [True, False], [False, False]]
