from __future__ import annotations

from pathlib import Path

import torch
from block_scans import block_label, write_scan

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.evaluation.mask_copy import centre_fit, copy_masks, support_masks
from fsmis_components.support import load_support_set


def test_centre_fit_crops_and_pads_about_the_centre() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1:3, 1:3] = True
    fitted = centre_fit(mask, (2, 8))
    expected = torch.zeros(1, 2, 8, dtype=torch.bool)
    expected[0, :, 3:5] = True
    assert torch.equal(fitted, expected)


def test_each_slice_gets_the_mask_of_its_section() -> None:
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    for section in range(3):
        masks[0, section].flatten()[section] = True
    copied = copy_masks(masks, torch.tensor([[-1], [0], [2], [-1]]), (2, 2))
    assert copied.shape == (4, 1, 2, 2)
    assert copied[:, 0].flatten(1).int().tolist() == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_masks_of_the_support(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    masks = support_masks(load_support_set(tmp_path), SliceGrid(2, 1.0, 24))
    label = torch.from_numpy(block_label())
    assert masks.shape == (2, 3, 24, 20)
    assert torch.equal(masks[0, 0], label[..., 3] == 1)
    assert torch.equal(masks[1, 2], label[..., 8] == 2)
