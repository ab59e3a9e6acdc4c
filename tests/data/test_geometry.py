import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from volume_samples import ORIENTATIONS, ras_affine, stored_as

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid, display_plane
from fsmis_components.data.volumes import Volume


def numbered(shape=(5, 4, 3)) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), ras_affine())


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_round_trip_is_exact(axes):
    ras = numbered()
    volume = stored_as(ras, axes)
    for slice_axis in range(3):
        view = SliceView(volume, SliceGrid(slice_axis, 1.5, 8))
        stack = view.native_labels()
        np.testing.assert_array_equal(stack, np.moveaxis(ras.data, slice_axis, 0))
        assert stack.shape == (view.depth, *view.native_size)
        np.testing.assert_array_equal(view.restack(stack), volume.data)
        np.testing.assert_array_equal(view.native(1, 2), stack[1:2])


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_network_sees_the_same_whatever_the_storage(axes):
    ras = numbered((12, 10, 4))
    volume = stored_as(ras, axes)
    grid = choose_slice_grid(ras, spatial_size=16)
    assert choose_slice_grid(volume, spatial_size=16) == grid
    view, expected = SliceView(volume, grid), SliceView(ras, grid)
    assert view.working_size == expected.working_size == (16, round(10 * 1.25 / grid.spacing))
    torch.testing.assert_close(view.slices(0, 4), expected.slices(0, 4), rtol=0, atol=0)
    torch.testing.assert_close(view.labels(1, 3, [7]), expected.labels(1, 3, [7]), rtol=0, atol=0)


def turned(volume: Volume, axis: int, degrees: float) -> Volume:
    """The same voxels with a header that is turned about an anatomical axis."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.eye(3)[axis] * degrees, degrees=True).as_matrix()
    return Volume(volume.data, turn @ volume.affine)


@pytest.mark.parametrize("degrees", [-80, -46, 30, 45, 60])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scans_of_an_oblique_plane_are_cut_as_they_were_acquired(axis, degrees):
    plain = numbered((6, 5, 4))
    support = turned(plain, axis, degrees)
    grid = choose_slice_grid(support, spatial_size=16)
    expected = SliceView(support, grid).native_labels()
    assert len(expected) == 4  # the thick axis is that of the slices
    for axes in ORIENTATIONS[::5]:
        # stored otherwise, and tilted some more: the next patient's heart
        query = turned(stored_as(support, axes), (axis + 1) % 3, 25)
        view = SliceView(query, grid)
        np.testing.assert_array_equal(view.native_labels(), expected)
        np.testing.assert_array_equal(view.restack(expected), query.data)
        again = stored_as(support, axes)
        own = choose_slice_grid(again, spatial_size=16)
        if degrees in (-46, 45):  # no anatomical axis is near: rows and columns as stored
            order = SliceView(again, own).order
            assert order.backwards == (False, False, False) and order.axes[1] < order.axes[2]
        else:
            assert own == grid


def test_a_near_isotropic_scan_follows_the_plane_of_the_support():
    data = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    thick = Volume(data, ras_affine((1, 5, 1)))
    isotropic = Volume(data, ras_affine((1, 1.2, 1)))
    grid = choose_slice_grid(thick, spatial_size=16)  # coronal
    for axes in ("RAS", "SAR", "PIL"):
        view = SliceView(stored_as(isotropic, axes), grid)
        np.testing.assert_array_equal(view.native_labels(), np.moveaxis(data, 1, 0))
    # and the other way round: its own plane, unless that lies across the support's
    grid = choose_slice_grid(isotropic, spatial_size=16)
    assert (grid.slice_axis, grid.thick) == (1, None)
    tilted = SliceView(turned(Volume(data, ras_affine((1, 1, 5))), 0, 48), grid)
    assert len(tilted.native_labels()) == 4 and tilted.tilt == pytest.approx(42, abs=1e-3)
    across = SliceView(Volume(data, ras_affine((1, 1, 5))), grid)
    assert len(across.native_labels()) == 5 and across.tilt == 0


@pytest.mark.parametrize("angle", [0.0, 0.6, 0.9])
def test_sheared_and_left_handed_headers(angle):
    plain = Volume(np.arange(6 * 5 * 4).reshape(6, 5, 4), ras_affine(angle=angle))
    sheared = Volume(plain.data, plain.affine.copy())
    sheared.affine[:3, 2] += 0.4 * sheared.affine[:3, 1] * 5  # a tilted gantry
    for volume in (plain, sheared):
        grid = choose_slice_grid(volume, spatial_size=16)
        expected = SliceView(volume, grid).native_labels()
        for axes in ("RAS", "LAS", "SPR", "AIL"):
            view = SliceView(stored_as(volume, axes), grid)
            np.testing.assert_array_equal(view.native_labels(), expected)


def test_slice_axis_is_that_of_largest_spacing():
    known = {(1, 1, 5): 2, (1, 4, 1): 1, (3, 1, 1): 0, (1, 1, 1): 2, (3, 3, 1): 1, (1.1, 1, 1): 0}
    for spacing, axis in {**known, (1.005, 1, 1): 2}.items():
        volume = stored_as(Volume(np.zeros((6, 7, 8)), ras_affine(spacing)), "SLA")
        assert choose_slice_grid(volume, spatial_size=16).slice_axis == axis, spacing


@pytest.mark.parametrize(
    ("word", "axis"),
    [("axial", 2), ("coronal", 1), ("Sagittal", 0), (0, 0), ("1", 1), (2, 2)],
)
def test_slice_axis_can_be_named(word, axis):
    volume = Volume(np.zeros((6, 7, 8)), ras_affine((3, 1, 1)))
    grid = choose_slice_grid(volume, spatial_size=16, slice_axis=word)
    assert grid.slice_axis == axis
    # the larger in-plane extent in millimetres, of 18 x 7 x 8
    assert grid.spacing == pytest.approx({0: 8, 1: 18, 2: 18}[axis] / 16)


def test_ignore_spacing():
    volume = Volume(np.zeros((20, 40, 10)), ras_affine((9, 1, 1)))
    grid = choose_slice_grid(volume, spatial_size=32, ignore_spacing=True)
    assert grid == SliceGrid(2, None, 32, thick=0)
    assert SliceView(volume, grid).working_size == (16, 32)
    other = Volume(np.zeros((60, 30, 10)), ras_affine((1, 1, 200)))
    assert SliceView(other, grid).working_size == (32, 16)


def test_slice_values_by_hand():
    data = np.zeros((4, 2, 1), np.uint8)
    data[:2] = 8
    view = SliceView(Volume(data, ras_affine((1, 1, 1))), SliceGrid(2, None, 8))
    # twice as fine, half-pixel centres: 8 8 | 6 2 | 0 0 around the edge
    column = torch.tensor([8.0, 8, 8, 6, 2, 0, 0, 0])
    torch.testing.assert_close(view.slices(0, 1), column[None, None, :, None].expand(1, 1, 8, 4))
    expected = (column >= 4).float()[None, None, :, None].expand(1, 1, 8, 4)
    torch.testing.assert_close(view.labels(0, 1, [8]), expected)
    assert view.labels(0, 1, [8, 9]).shape == (1, 2, 8, 4)
    assert view.labels(0, 1, [8, 9])[:, 1].sum() == 0
    # and back, as logits of a perfect network
    logits = torch.cat([torch.zeros_like(expected), 4 * expected - 2], dim=1)
    mask = view.to_native_logits(logits).argmax(1).numpy()
    np.testing.assert_array_equal(view.restack(mask) * 8, data)


@pytest.mark.parametrize("axes", ["RAS", "SPL"])
def test_reads_only_the_slab(axes):
    class Recorder:
        def __init__(self, data):
            self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

        def __getitem__(self, index):
            part = self.data[index]
            self.read += part.size
            return part

    ras = numbered((6, 5, 10))
    volume = stored_as(ras, axes)
    recorder = Recorder(volume.data)
    view = SliceView(Volume(recorder, volume.affine), SliceGrid(2, None, 8))
    slab = view.slices(2, 5)
    assert recorder.read == 6 * 5 * 3
    torch.testing.assert_close(slab, SliceView(ras, view.grid).slices(2, 5))


def test_display_plane_is_radiological():
    # one bright voxel in the right, anterior, superior corner
    data = np.zeros((3, 4, 5))
    data[-1, -1, -1] = 1
    volume = Volume(data, ras_affine((1, 1, 1)))
    for slice_axis, size in ((0, (5, 4)), (1, (5, 3)), (2, (4, 3))):
        view = SliceView(volume, SliceGrid(slice_axis, None, 8))
        picture = display_plane(view.native_labels()[-1])
        assert picture.shape == size
        assert picture[0, 0] == 1


def test_rejects():
    volume = numbered()
    with pytest.raises(DataError, match="slice_axis: expected auto, axial.*got 'diagonal'"):
        choose_slice_grid(volume, slice_axis="diagonal")
    with pytest.raises(DataError, match="slice_axis: .* got 3"):
        choose_slice_grid(volume, slice_axis=3)
    with pytest.raises(DataError, match="spatial_size: expected at least 8 pixels, got 4"):
        choose_slice_grid(volume, spatial_size=4)
    for spacing in (0.001, 100.0):
        with pytest.raises(DataError, match=r"a spacing in a header is wrong.*--ignore_spacing"):
            SliceView(volume, SliceGrid(2, spacing, 256))
