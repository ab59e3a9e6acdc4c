import pytest
import torch

from fsmis_components.layers import GridPrototypes, PrototypeMode

B, N, C, H, W = 2, 3, 19, 17, 33


def test_grid_values():
    # two rows of three cells of 2 x 2; a border column is left out
    features = torch.arange(4.0)[:, None] * 10 + torch.arange(7.0)
    mask = torch.zeros(4, 7)
    mask[:2, :3] = 1  # the first cell, half of the second
    mask[2:, 4:] = 1  # the last cell and the border
    cells, valid = GridPrototypes(2)(
        torch.stack([features, -features])[None], torch.stack([mask, 1 - mask])[None]
    )
    expected = torch.tensor([5.5, 7.5, 9.5, 25.5, 27.5, 29.5])
    torch.testing.assert_close(cells, torch.stack([expected, -expected], 1)[None])
    assert valid[0].int().tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0]]


def test_grid_threshold_is_strict_and_the_switch_is_not():
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)  # fills 0.75
    features = torch.rand(1, C, 2, 2)
    assert not GridPrototypes(2, threshold=0.75)(features, mask)[1].item()
    assert GridPrototypes(2, threshold=0.74)(features, mask)[1].item()
    assert PrototypeMode(2, threshold=0.75)(mask).item()
    assert not PrototypeMode(2, threshold=0.76)(mask).item()


def test_half_masks_are_compared_in_float32():
    # 61 of 64 fill 0.953; bfloat16 would round both sides to one number
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bfloat16)
    mask[..., 0, :3] = 0
    assert GridPrototypes(8)(torch.rand(1, C, 8, 8).bfloat16(), mask)[1].item()
    assert PrototypeMode(8)(mask).item()


def test_a_window_larger_than_the_features_is_clipped():
    features, mask = torch.rand(B, C, 3, 5), torch.ones(B, N, 3, 5)
    cells, valid = GridPrototypes(4)(features, mask)
    torch.testing.assert_close(cells, features[..., :4].mean((2, 3))[:, None])
    assert valid.all()
    assert PrototypeMode(4)(mask).all()


def test_mode_looks_at_aligned_blocks():
    mask = torch.zeros(1, 3, 8, 8)
    mask[0, 0, 4:, :4] = 1  # a block
    mask[0, 1, 2:6, 2:6] = 1  # as large, across four blocks
    assert PrototypeMode(4)(mask).tolist() == [[True, False, False]]


@pytest.mark.parametrize("shape", [(B, H, W), (B, N, H, W - 1)], ids=str)
def test_grid_rejects(shape):
    with pytest.raises(ValueError, match="GridPrototypes: expected features .* resize the mask"):
        GridPrototypes(4)(torch.rand(B, C, H, W), torch.rand(shape))
