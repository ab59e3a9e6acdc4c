import pytest
import torch

from fsmis_components.layers import resize_logits, resize_mask


@pytest.mark.parametrize("resize", [resize_mask, resize_logits])
def test_half_pixel_centres(resize):
    # new centres lie at old positions -0.25 (clamped), 0.25, 0.75, 1.25 (clamped)
    row = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0]).reshape(1, 1, 1, 4)
    torch.testing.assert_close(resize(row, (1, 4)), expected)


def test_integer_masks_become_weights():
    mask = torch.tensor([[[[0, 1], [1, 1]]]], dtype=torch.uint8)
    assert resize_mask(mask, (1, 1)).item() == 0.75
    assert resize_mask(mask > 0, (2, 2)).dtype == torch.float32
