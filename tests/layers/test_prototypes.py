import torch

from fsmis_components.layers.prototypes import fills_a_block, grid_prototypes

B, N, C = 2, 3, 19


def test_grid_values():
    # two rows of three cells of 2 x 2; a border column is left out
    features = torch.arange(4.0)[:, None] * 10 + torch.arange(7.0)
    mask = torch.zeros(4, 7)
    mask[:2, :3] = 1  # the first cell, half of the second
    mask[2:, 4:] = 1  # the last cell and the border
    masks = torch.stack([mask, 1 - mask])[None]
    cells, valid = grid_prototypes(torch.stack([features, -features])[None], masks, 2, 0.95)
    expected = torch.tensor([5.5, 7.5, 9.5, 25.5, 27.5, 29.5])
    torch.testing.assert_close(cells, torch.stack([expected, -expected], 1)[None])
    assert valid[0].int().tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0]]


def test_grid_threshold_is_strict_and_the_switch_is_not():
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)  # fills 0.75
    features = torch.rand(1, C, 2, 2)
    assert not grid_prototypes(features, mask, 2, 0.75)[1].item()
    assert grid_prototypes(features, mask, 2, 0.74)[1].item()
    assert fills_a_block(mask, 2, 0.75).item()
    assert not fills_a_block(mask, 2, 0.76).item()


def test_half_masks_are_compared_in_float32():
    # 61 of 64 fill 0.953; bfloat16 would round both sides to one number
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bfloat16)
    mask[..., 0, :3] = 0
    assert grid_prototypes(torch.rand(1, C, 8, 8).bfloat16(), mask, 8, 0.95)[1].item()
    assert fills_a_block(mask, 8, 0.95).item()


def test_a_window_larger_than_the_features_is_clipped():
    features, mask = torch.rand(B, C, 3, 5), torch.ones(B, N, 3, 5)
    cells, valid = grid_prototypes(features, mask, 4, 0.95)
    torch.testing.assert_close(cells, features[..., :4].mean((2, 3))[:, None])
    assert valid.all()
    assert fills_a_block(mask, 4, 0.95).all()
