from __future__ import annotations

import nibabel
import numpy as np
import pytest

from fsmis_components.data.field_of_view import CT_FRACTION, body_mask, field_of_view
from fsmis_components.data.geometry import SliceGrid, choose_slice_grid
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.data.volumes import Volume

SPACING = np.array([2.0, 2.0, 6.0])
BODY = (slice(30, 78), slice(8, 44), slice(None))  # right-left, posterior-anterior


def scan(
    ct: bool = False,
    table: bool = False,
    body: tuple[slice, ...] = BODY,
    shape: tuple[int, int, int] = (100, 100, 12),
) -> Volume:
    """A patient low at the side of a wide field of view, stored right to left, and so on."""
    rng = np.random.default_rng(0)
    air, tissue = (-1000, 60) if ct else (0, 400)
    data = rng.normal(air, 5 if ct else 2, shape)
    data[body] = rng.normal(tissue, 30, data[body].shape)
    if table:
        data[5:95, 3:5] = tissue
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-90, -120, 40]
    return Volume(np.round(data).astype(np.int16), affine)


def grid_of(volume: Volume) -> SliceGrid:
    return choose_slice_grid(volume, spatial_size=64)


@pytest.mark.parametrize(("ct", "table"), [(False, True), (True, True), (False, False)])
def test_the_patient_and_a_tenth_around(ct: bool, table: bool) -> None:
    volume = scan(ct, table)
    window = field_of_view(volume, grid_of(volume)).window
    assert window == (slice(24, 84), slice(4, 48), slice(0, 12))


def test_a_filled_field_stays_whole() -> None:
    volume = scan(body=(slice(10, 90), slice(14, 84), slice(None)))
    field = field_of_view(volume, grid_of(volume))
    assert field.is_whole and field.cut(volume) is volume
    label = np.ones(volume.shape)
    assert field.put_back(label) is label


def test_nothing_is_cut_where_a_structure_lies_outside_or_slices_are_not_known() -> None:
    volume = scan()
    whole = SliceGrid(2, 3.0, 64, whole_slices=True)
    assert field_of_view(volume, whole).is_whole
    unknown = Volume(volume.data, np.eye(4), oriented=False)
    assert field_of_view(unknown, SliceGrid(2, 1.5, 64)).is_whole


def test_voxels_keep_their_place_in_the_patient_and_in_the_scan() -> None:
    volume = scan()
    field = field_of_view(volume, grid_of(volume))
    part = field.cut(volume)
    first = [each.start for each in field.window]
    place = nibabel.affines.apply_affine(part.affine, [0, 0, 0])
    assert np.allclose(place, nibabel.affines.apply_affine(volume.affine, first))
    back = field.put_back(part.data)
    assert back.shape == volume.shape and back.dtype == part.data.dtype
    assert np.array_equal(back[field.window], volume.data[field.window])
    assert np.count_nonzero(back) == np.count_nonzero(part.data)


def test_the_same_part_in_any_order() -> None:
    # so large that not every voxel is looked at
    body = (slice(41, 110), slice(11, 80), slice(1, 4))
    volume = scan(table=True, body=body, shape=(201, 198, 5))
    grid = grid_of(volume)
    expected = field_of_view(volume, grid).cut(volume).data.sum()
    for order in StorageOrder.every()[::5]:
        turn = np.stack([order.axes, [-1 if back else 1 for back in order.backwards]], 1)
        stored = nibabel.Nifti1Image(volume.data, volume.affine).as_reoriented(
            nibabel.orientations.ornt_transform(nibabel.io_orientation(np.eye(4)), turn)
        )
        other = Volume(np.asarray(stored.dataobj), stored.affine)
        part = field_of_view(other, grid).cut(other)
        assert part.data.sum() == expected


def test_values_largest_component_without_holes() -> None:
    volume = np.random.default_rng(0).uniform(0, 10, (2, 32, 32))
    volume[:, 6:26, 6:26] = 500
    volume[:, 14:18, 14:18] = 0  # a hole
    volume[:, 28:31, 28:31] = 500  # an island
    expected = np.zeros((2, 32, 32), dtype=bool)
    expected[:, 6:26, 6:26] = True
    assert np.array_equal(body_mask(volume), expected)


def test_crop_without_background_is_kept() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(100, 20, (3, 40, 40))
    assert body_mask(volume).mean() > 0.98


def test_fat_of_windowed_ct_is_patient() -> None:
    volume = np.full((1, 20, 20), -125.0)
    volume[:, 4:16, 4:16] = -110  # fat
    volume[:, 8:12, 8:12] = 275
    assert body_mask(volume, fraction=CT_FRACTION).sum() == 144
    assert body_mask(volume).sum() == 16
