"""In which orders a scan may have to be read, by what its header says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from volume_samples import ORIENTATIONS, ras_affine, stored_as

from fsmis_components.data.geometry import SliceView, candidate_orders, choose_slice_grid
from fsmis_components.data.volumes import Volume

DATA = np.arange(6 * 5 * 4).reshape(6, 5, 4)
THICK = Volume(DATA, ras_affine((1, 1, 5)))
ISOTROPIC = Volume(DATA, ras_affine((1, 1, 1.1)))


def turned(volume: Volume, axis: int, degrees: float) -> Volume:
    """The same voxels with a header that is turned about an anatomical axis."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.eye(3)[axis] * degrees, degrees=True).as_matrix()
    return Volume(volume.data, turn @ volume.affine)


def views(volume: Volume, support: Volume, known: bool = True) -> list[SliceView]:
    grid = choose_slice_grid(support, spatial_size=16)
    return [SliceView(volume, grid, order) for order in candidate_orders(volume, grid, known)]


@pytest.mark.parametrize("volume", [THICK, ISOTROPIC])
@pytest.mark.parametrize("degrees", [0, 35, -39])
def test_an_ordinary_header_leaves_one_order(volume: Volume, degrees: float) -> None:
    for axis in range(3):
        for axes in ORIENTATIONS[::3]:
            [view] = views(turned(stored_as(volume, axes), axis, degrees), volume)
            np.testing.assert_array_equal(view.native_labels(), np.moveaxis(DATA, 2, 0))


@pytest.mark.parametrize(("degrees", "count"), [(38, 1), (42, 2), (45, 2), (48, 2), (52, 1)])
def test_about_45_degrees_either_of_two_orders_may_be_right(degrees: float, count: int) -> None:
    for axes in ("RAS", "LPS", "SAR", "PIL"):
        found = views(turned(stored_as(THICK, axes), 2, degrees), THICK)
        assert len(found) == count
        expected = np.moveaxis(DATA, 2, 0)  # and turned by 90 degrees, not mirrored
        stacks = [expected, np.rot90(expected, 1, (1, 2))]
        for stack in stacks[:count] if degrees < 45 else stacks[::-1][:count]:
            assert any(np.array_equal(view.native_labels(), stack) for view in found)


def test_isotropic_slices_at_45_degrees_may_be_cut_either_way() -> None:
    first, second = views(turned(ISOTROPIC, 0, 44), ISOTROPIC)
    assert first.depth == 4 and second.depth == 5
    # thick ones stay slices
    [view] = views(turned(THICK, 0, 44), THICK)
    assert view.depth == 4


@pytest.mark.parametrize(("volume", "count"), [(THICK, 16), (ISOTROPIC, 48)])
def test_without_orientation_all_orders_are_possible(volume: Volume, count: int) -> None:
    for axes in ("RAS", "ALS", "SAR"):
        found = views(stored_as(volume, axes), volume, known=False)
        stacks = [view.native_labels() for view in found]
        assert len({stack.tobytes() + bytes(stack.shape) for stack in stacks}) == count
        np.testing.assert_array_equal(stacks[0], np.moveaxis(DATA, 2, 0))  # of the header first
        for view in found:
            np.testing.assert_array_equal(view.restack(view.native_labels()), view.volume.data)


def test_a_scan_whose_header_says_nothing_is_not_called_tilted() -> None:
    unknown = Volume(DATA, np.diag([1.0, 1, 1, 1]), None, False)
    assert {view.tilt for view in views(unknown, ISOTROPIC, known=False)} == {0.0}
