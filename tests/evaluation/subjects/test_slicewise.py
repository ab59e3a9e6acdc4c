from __future__ import annotations

import nibabel
import numpy as np
import torch

from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.slicewise import (
    centre_fit,
    label_map,
    on_canvas,
    scan_slices,
)


def test_centre_fit_crops_and_pads_about_the_centre() -> None:
    maps = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    assert centre_fit(maps, (4, 2)).tolist() == [[0, 0], [2, 3], [6, 7], [0, 0]]


def test_fitting_back_undoes_a_padding() -> None:
    generator = torch.Generator().manual_seed(1)
    for height, width in ((5, 8), (6, 7), (4, 4)):
        maps = torch.rand(2, 3, height, width, generator=generator)
        assert torch.equal(centre_fit(centre_fit(maps, (9, 10)), (height, width)), maps)


def test_a_slice_is_surrounded_by_its_darkest_value() -> None:
    slices = torch.tensor([[[[-1.0, 2.0]]], [[[3.0, 5.0]]]])
    canvas = on_canvas(slices, (2, 4))
    assert canvas[0, 0].tolist() == [[-1, -1, 2, -1], [-1, -1, -1, -1]]
    assert canvas[1, 0].tolist() == [[3, 3, 5, 3], [3, 3, 3, 3]]


def test_slices_do_not_depend_on_the_slab() -> None:
    data = np.random.default_rng(1).normal(size=(6, 4, 5)).astype(np.float32)
    view = SliceView(Volume(data, np.eye(4)), SliceGrid(2, 1.0, 8))
    whole = scan_slices(view, lambda part: 2 * part, (8, 8), slab=16)
    assert whole.shape == (5, 1, 8, 8)
    assert torch.equal(whole[2, 0, 1:7, 2:6], 2 * torch.from_numpy(data[..., 2]))
    assert torch.equal(whole, scan_slices(view, lambda part: 2 * part, (8, 8), slab=2))


def test_winners_become_label_values_in_storage_order() -> None:
    affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt("LIP"), (3, 2, 4))
    stored = Volume(np.arange(24).reshape(3, 2, 4), affine)
    view = SliceView(stored, SliceGrid(2, 1.0, 8))
    winners = torch.from_numpy(view.native_labels() % 3)
    values = np.array([0, 7, 300])
    label = label_map(view, [7, 300], winners.split(2))
    assert label.dtype == np.uint16
    assert np.array_equal(label, values[np.asarray(stored.data) % 3])
