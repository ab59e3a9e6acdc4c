import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from volume_samples import ORIENTATIONS, ras_affine, save_nifti, stored_as

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.nifti import StoredArray
from fsmis_components.data.volumes import Volume, load_image, load_label, save_mask, save_shares

SHAPE = (5, 4, 3)


def numbers(dtype=np.int16) -> np.ndarray:
    return np.arange(60).reshape(SHAPE).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int32, np.float32, np.float64])
def test_image_values(tmp_path, dtype):
    data = numbers(dtype)
    volume = load_image(save_nifti(tmp_path / "a.nii", data, ras_affine(angle=0.2)))
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, ras_affine(angle=0.2), atol=1e-5)
    assert volume.shape == SHAPE
    assert volume.spacing == pytest.approx((1.5, 1.25, 6.0), abs=1e-5)
    assert volume.source == tmp_path / "a.nii"
    assert volume.data.dtype.itemsize == np.dtype(dtype).itemsize  # no float copy
    assert isinstance(volume.data, np.memmap)
    packed = load_image(save_nifti(tmp_path / "a.nii.gz", data))
    np.testing.assert_array_equal(packed.data, data)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1024.0), (-0.5, 3.0)])
def test_scaled_image_is_scaled_where_it_is_read(tmp_path, suffix, slope, intercept):
    image = nibabel.Nifti1Image(numbers(), ras_affine())
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / f"a{suffix}")  # nibabel rounds the data to fit the scale
    expected = np.asarray(nibabel.load(tmp_path / f"a{suffix}").dataobj)
    volume = load_image(tmp_path / f"a{suffix}")
    assert isinstance(volume.data, StoredArray)
    assert volume.data.raw.dtype == np.int16
    np.testing.assert_allclose(np.asarray(volume.data), expected, rtol=1e-6)
    np.testing.assert_allclose(volume.data[1:3, ..., 2], expected[1:3, ..., 2], rtol=1e-6)
    assert volume.data[..., 0].dtype == volume.data.dtype == np.float32
    view = SliceView(volume, SliceGrid(2, None, 8))
    np.testing.assert_allclose(view.native(1, 2)[0], expected[..., 1], rtol=1e-6)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 9999, (30, 30, 30)).astype(np.int16)
    return written(path, save_nifti(path, noise).read_bytes()[:-20000])


def holding(path: Path, value: float) -> Path:
    data = numbers(np.float64)
    data[1, 2, 0] = data[1, 2, 1] = value
    return save_nifti(path, data)


def flat(path: Path) -> Path:
    image = nibabel.Nifti1Image(numbers(), None)  # nibabel refuses to write such an affine
    image.header["sform_code"] = 1
    for row, values in zip("xyz", np.diag([1.0, 0.0, 1.0, 1.0]), strict=False):
        image.header[f"srow_{row}"] = values
    nibabel.save(image, path)
    return path


COLOUR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SINGULAR = ras_affine()[:, [0, 1, 1, 3]]
ONE_3D = "expected one 3D volume with at least one voxel, got shape"
NO_DATA = "which mark where there is no data; replace"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "there is no such file; check the path"),
        (lambda path: written(path, b"no scan"), "not a NIfTI file, or a damaged one"),
        (lambda path: written(path, gzip.compress(bytes(999))), "not a NIfTI file, or a damaged"),
        (lambda path: written(path.with_suffix(".png"), b""), "not a format that is read; convert"),
        (cut, "the file ends early or is damaged"),
        (lambda path: cut(path.with_suffix("")), "the file ends early or is damaged"),
        (lambda path: holding(path, np.nan), "2 voxels are NaN or infinite; replace them"),
        (lambda path: holding(path, np.inf), "2 voxels are NaN or infinite; replace them"),
        (lambda path: holding(path, -1e30), f"2 voxels hold values like -1e+30, {NO_DATA}"),
        (lambda path: holding(path, 1.8e307), f"2 voxels hold values like 1.8e+307, {NO_DATA}"),
        (lambda path: save_nifti(path, np.zeros((4, 4, 4, 2), "u1")), f"{ONE_3D} (4, 4, 4, 2); s"),
        (lambda path: save_nifti(path, np.zeros((4, 4), "u1")), f"{ONE_3D} (4, 4); save one"),
        (lambda path: save_nifti(path, np.zeros((4, 0, 4), "u1")), f"{ONE_3D} (4, 0, 4); save"),
        (lambda path: save_nifti(path, np.zeros((4, 4, 4), COLOUR)), "expected one number per vox"),
        (lambda path: save_nifti(path, numbers(), SINGULAR), "the affine is singular (spacing 1.5"),
        (flat, "the affine is singular (spacing 1, 0, 1), so the voxels have no place"),
    ],
)
def test_rejects_images(tmp_path, make, message):
    path = make(tmp_path / "image_7.nii.gz")
    with pytest.raises(DataError) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (numbers(np.float32) + 0.5, "a label holds whole numbers, this one holds 0.5; save it"),
        (numbers(np.float32) * np.nan, "a label holds whole numbers, this one holds nan; save it"),
        (numbers() - 2, "a label holds numbers from 0 (background) on, this one holds -2; give"),
    ],
)
def test_rejects_labels(tmp_path, data, message):
    path = save_nifti(tmp_path / "label_7.nii.gz", data)
    with pytest.raises(DataError) as caught:
        load_label(path, Volume(numbers(), ras_affine()))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_rejects_labels_on_another_grid(tmp_path):
    image = Volume(numbers(), ras_affine(), Path("image_7.nii.gz"))
    path = save_nifti(tmp_path / "label_7.nii.gz", np.zeros((5, 4, 2), np.uint8))
    with pytest.raises(DataError) as caught:
        load_label(path, image)
    assert str(caught.value).startswith(
        f"{path} and its image image_7.nii.gz: their shapes differ, (5, 4, 2) against (5, 4, 3); "
    )
    path = save_nifti(path, np.zeros(SHAPE, np.uint8), ras_affine(origin=(0, 0, 0)))
    with pytest.raises(DataError, match="image image_7.nii.gz: their affines differ, so the label"):
        load_label(path, image)


def test_label_without_a_place_is_taken_voxel_by_voxel(tmp_path):
    image = Volume(numbers(), ras_affine(angle=0.3))
    for affine in (np.eye(4), np.diag([-1.0, -1, 1, 1])):
        path = save_nifti(tmp_path / "a.nii.gz", numbers(), affine)
        label = load_label(path, image)
        np.testing.assert_array_equal(label.data, numbers())
        np.testing.assert_array_equal(label.affine, image.affine)
    uncoded = nibabel.Nifti1Image(numbers(), None)
    uncoded.header.set_zooms((2, 3, 4))
    nibabel.save(uncoded, path)
    assert not np.allclose(nibabel.load(path).affine[:3, :3], np.eye(3))
    np.testing.assert_array_equal(load_label(path, image).data, numbers())


@pytest.mark.parametrize("axes", ORIENTATIONS[::9])
def test_label_in_another_storage_order_is_reordered(tmp_path, axes):
    image = Volume(numbers(), ras_affine(angle=0.3))
    turned = stored_as(image, axes)
    path = save_nifti(tmp_path / "a.nii.gz", turned.data, turned.affine)
    label = load_label(path, image)
    np.testing.assert_array_equal(label.data, numbers())
    # its own file is no template: it is stored in the other order
    saved = save_mask(tmp_path / "b.nii.gz", label.data, label)
    np.testing.assert_array_equal(load_label(saved, image).data, numbers())
    assert nibabel.load(saved).shape == SHAPE


def template(path: Path, *, codes=(1, 2)) -> Path:
    image = nibabel.Nifti1Image(numbers(np.float32) - 20, ras_affine(angle=0.2))
    image.set_qform(ras_affine(angle=0.2), code=codes[0])
    image.set_sform(ras_affine(angle=0.2), code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"T2 SPIR"
    image.header["cal_max"] = 900
    image.header["aux_file"] = b"aux"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"patient's name"))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    ("codes", "suffix"), [((1, 2), ".nii"), ((1, 0), ".nii.gz"), ((0, 4), ".nii"), ((0, 0), ".nii")]
)
def test_mask_keeps_the_header(tmp_path, codes, suffix):
    source = template(tmp_path / "image_7.nii.gz", codes=codes)
    expected = nibabel.load(source)
    saved = save_mask(tmp_path / f"o/image_7_seg{suffix}", numbers() % 5, load_image(source))
    mask = nibabel.load(saved)
    np.testing.assert_array_equal(mask.affine, expected.affine)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), numbers() % 5)
    fields = ["dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "descrip", "aux_file"]
    fields += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    for field in [*fields, "srow_x", "srow_y", "srow_z"]:
        np.testing.assert_array_equal(mask.header[field], expected.header[field], field)
    assert mask.header["cal_max"] == 0
    assert len(mask.header.extensions) == 0
    raw = nibabel.Nifti1Header.from_fileobj(nibabel.openers.Opener(saved))
    assert (raw["scl_slope"], raw["scl_inter"]) == (1, 0) or np.isnan(raw["scl_slope"])
    assert b"patient" not in nibabel.openers.Opener(saved).read()


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(0, "u1"), (1, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")],
)
def test_mask_takes_the_smallest_type(tmp_path, largest, dtype):
    label = np.zeros(SHAPE, np.int64)
    label[1, 2, 1] = largest
    saved = save_mask(tmp_path / "a.nii.gz", label, Volume(label, ras_affine()))
    assert nibabel.load(saved).get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(load_label(saved).data, label)


def test_shares_come_back_from_a_byte_each(tmp_path):
    source = load_image(template(tmp_path / "a.nii.gz"))
    steps = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    saved = nibabel.load(save_shares(tmp_path / "b.nii.gz", steps, source))
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_allclose(saved.get_fdata(), steps / 255, atol=1e-7)
    np.testing.assert_array_equal(saved.dataobj.get_unscaled(), steps)


def header_alone(path: Path, shape: tuple[int, ...]) -> Path:
    """A file whose header states a shape and that holds no voxel."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(np.eye(4) * 2, code=1)
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    return path


def test_headers_are_compared_before_a_voxel_is_read(tmp_path: Path) -> None:
    huge = header_alone(tmp_path / "huge.nii.gz", (30000, 30000, 3000))
    with pytest.raises(DataError, match="states 30000 x 30000 x 3000 voxels, more than"):
        load_image(huge)
    image = Volume(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    label = header_alone(tmp_path / "label.nii.gz", (4000, 50, 60))
    with pytest.raises(DataError, match=r"shapes differ, \(4000, 50, 60\) against \(4, 5, 6\)"):
        load_label(label, image)


def scaled(path: Path, values: np.ndarray, kind: type) -> tuple[Path, float]:
    """Write floats as integers with a slope, as nibabel does by itself; returns the slope."""
    image = nibabel.Nifti1Image(values.astype(np.float64), ras_affine())
    image.set_data_dtype(kind)
    nibabel.save(image, path)
    return path, float(nibabel.load(path).dataobj.slope)


@pytest.mark.parametrize(("kind", "largest"), [(np.int16, 208), (np.uint8, 53), (np.uint8, 208)])
def test_whole_numbers_under_a_slope(tmp_path: Path, kind: type, largest: int) -> None:
    label = np.zeros((9, 8, 7), np.int16)
    label[1:8, 2:7, 1:6] = np.arange(175).reshape(7, 5, 5) // 25 * largest // 6
    path, slope = scaled(tmp_path / "label.nii.gz", label, kind)
    stored = np.asarray(nibabel.load(path).dataobj)
    assert slope < 1 and not np.allclose(stored, np.rint(stored), atol=1e-3)
    np.testing.assert_array_equal(np.rint(stored), label)
    np.testing.assert_array_equal(load_label(path).data, label)


@pytest.mark.parametrize("largest", [1.0, 53.0, 220.0])
def test_shares_under_a_slope_are_no_label(tmp_path: Path, largest: float) -> None:
    values = np.linspace(0, largest, 9 * 8 * 7).reshape(9, 8, 7)
    for kind in (np.uint8, np.int16):
        path, _ = scaled(tmp_path / "label.nii.gz", values, kind)
        with pytest.raises(DataError, match="a label holds whole numbers, this one holds"):
            load_label(path)


def test_a_scan_is_no_label(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 400, (20, 20, 9)).astype(np.int16)
    path = save_nifti(tmp_path / "label_1.nii.gz", noise)
    with pytest.raises(DataError, match="values that change from voxel to voxel, as a scan does"):
        load_label(path, load_image(path))


@pytest.mark.parametrize("name", ["chaos_t2", "btcv_ct", "hippocampus", "brains"])
def test_real_scans_are_no_labels(fsmis_data_dir: Path, tmp_path: Path, name: str) -> None:
    """Of one scan for another: not the same voxels, only of the same kind."""
    scan = sorted((fsmis_data_dir / name).glob("image_*"))[0]
    data = np.asarray(load_image(scan).data)
    values = np.rint(data - data.min()).astype(np.int32)
    with pytest.raises(DataError, match="values that change from voxel to voxel"):
        load_label(save_nifti(tmp_path / "label.nii.gz", values))
