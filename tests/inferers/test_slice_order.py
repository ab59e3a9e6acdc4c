"""Scans whose header leaves open how they are read: the image decides."""

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import write_nifti
from fake_network import ContrastNetwork
from scipy.spatial.transform import Rotation

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.data.volumes import Volume, load_image
from fsmis_components.inferers import VolumeInferer
from fsmis_components.inferers.volume_inferer import Segmentation
from fsmis_components.support import SupportPack, build_support_pack, load_support_set
from fsmis_components.support.support_pack import content_hash

SHAPE = (24, 20, 12)
SPACING = (1.0, 1.0, 4.0)
# of a thick-sliced scan: some of the 16 that keep slices together, and stored in any place
ORDERS = StorageOrder.every()[::7]
AFFINE = np.diag([*SPACING, 1.0])


def body(symmetric: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a long organ on the one side and a short one, in front of it.

    Symmetric: the left side is the mirror image of the right one.
    """
    label = np.zeros(SHAPE, np.uint8)
    label[3:10, 4:14, 1:9] = 1
    label[3:11, 14:19, 4:10] = 2
    if symmetric:
        label = np.maximum(label, label[::-1])
    image = np.array([0.0, 100.0, 200.0], np.float32)[label]
    image[:, :2] += 60  # the back
    noise = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    return image + (noise + noise[::-1] if symmetric else noise), label


def stored(data: np.ndarray, order: StorageOrder) -> np.ndarray:
    turned = np.transpose(data, order.axes)
    steps = tuple(slice(None, None, -1 if back else 1) for back in order.backwards)
    return np.ascontiguousarray(turned[steps])


def spacing_in(order: StorageOrder, spacing: tuple[float, ...] = SPACING) -> np.ndarray:
    return np.diag([*(spacing[axis] for axis in order.axes), 1.0])


def without_header(data: np.ndarray, order: StorageOrder) -> Volume:
    return Volume(stored(data, order), spacing_in(order), None, oriented=False)


def pack_of(
    folder: Path, spacing: tuple[float, ...] = SPACING, symmetric: bool = False, **settings: object
) -> SupportPack:
    image, label = body(symmetric)
    affine = np.diag([*spacing, 1.0])
    write_nifti(folder / "image_1.nii.gz", image, affine)
    write_nifti(folder / "label_1.nii.gz", label, affine)
    support = load_support_set(folder)
    return build_support_pack(ContrastNetwork(), support, spatial_size=24, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> SupportPack:
    return pack_of(tmp_path_factory.mktemp("support"))


def segmented(pack: SupportPack, volume: Volume) -> Segmentation:
    return VolumeInferer(pack).segment_volume(volume, ContrastNetwork())


@pytest.mark.parametrize("order", ORDERS)
def test_a_scan_without_orientation_is_read_as_it_looks(
    pack: SupportPack, order: StorageOrder
) -> None:
    image, label = body()
    found = segmented(pack, without_header(image + 1, order))
    np.testing.assert_array_equal(found.label, stored(label, order))
    [warning] = found.warnings
    assert "says nothing of its orientation (qform and sform codes are 0), so left" in warning
    assert warning.endswith("or check left and right of the mask.")
    usual = SliceView(without_header(label, order), pack.grid).native_labels()
    lucky = np.array_equal(usual, np.moveaxis(label, 2, 0))
    slices = ("first", "second", "third")[order.axes.index(2)]
    assert (f"it was read with slices along the {slices}" in warning) != lucky


def test_what_lies_as_its_header_is_taken_for_stays_as_it_was(pack: SupportPack) -> None:
    image, label = body()
    plain = segmented(pack, Volume(image, AFFINE))
    unknown = segmented(pack, Volume(image, AFFINE, None, oriented=False))
    np.testing.assert_array_equal(plain.label, label)
    np.testing.assert_array_equal(unknown.label, label)
    assert plain.warnings == ()
    [warning] = unknown.warnings
    assert "left and right may be swapped; export it again" in warning


def test_a_mirror_image_that_looks_the_same_changes_nothing(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, symmetric=True)
    image, label = body(symmetric=True)
    # the scan differs a little from the support, and so does its mirror image
    image = image + np.random.default_rng(5).normal(0, 3, SHAPE).astype(np.float32)
    for data in (image, image[::-1]):
        volume = Volume(np.ascontiguousarray(data), AFFINE, None, oriented=False)
        found = segmented(pack, volume)
        assert "left and right may be swapped; export it again" in found.warnings[0]
        np.testing.assert_array_equal(found.label, label)


def test_an_ordinary_scan_costs_not_a_slice_more(pack: SupportPack) -> None:
    image, _ = body()
    for oriented, slices in ((True, 12), (False, 12 + 8 * 4 + 4 * 12)):
        network = ContrastNetwork()
        volume = Volume(image, AFFINE, None, oriented)
        VolumeInferer(pack).segment_volume(volume, network)
        assert sum(network.encoded) == slices


def test_a_support_without_orientation_is_followed_as_it_is_stored(pack: SupportPack) -> None:
    pack = replace(pack, profiles=(replace(pack.profiles[0], oriented=False),))
    image, label = body()
    for order in ORDERS[::2]:
        found = segmented(pack, Volume(stored(image, order), spacing_in(order)))
        np.testing.assert_array_equal(found.label, stored(label, order))
        [warning] = found.warnings
        assert warning.startswith("The header of support scan 1 says nothing of its orientation")


@pytest.mark.parametrize("quarters", [0, 1])
def test_slices_turned_by_45_degrees_are_read_as_they_look(
    pack: SupportPack, quarters: int
) -> None:
    image, label = (np.ascontiguousarray(np.rot90(data, quarters)) for data in body())
    turn = np.eye(4)
    # after a quarter turn of the voxels the right order is by two degrees the farther one
    turn[:3, :3] = Rotation.from_rotvec([0, 0, -44], degrees=True).as_matrix()
    found = segmented(pack, Volume(image, turn @ AFFINE))
    np.testing.assert_array_equal(found.label, label)
    told = [warning for warning in found.warnings if "about halfway between two orders" in warning]
    assert len(told) == quarters


@pytest.mark.parametrize("order", [StorageOrder((0, 1, 2), (False,) * 3), ORDERS[5]])
def test_an_identity_is_no_orientation(tmp_path: Path, order: StorageOrder) -> None:
    """What NumPy users write; the voxels of the support are as wide as they are long."""
    pack = pack_of(tmp_path / "s", (1.0, 1.0, 1.0))
    image, label = body()
    path = write_nifti(tmp_path / "image_2.nii.gz", stored(image, order), np.eye(4))
    assert nibabel.load(path).header["sform_code"] > 0
    found = segmented(pack, load_image(path))
    np.testing.assert_array_equal(found.label, stored(label, order))
    told = any("The affine of the scan is an identity" in each for each in found.warnings)
    assert told == any(order.backwards)


def test_support_scans_of_different_orders_join_in_one_frame(tmp_path: Path) -> None:
    image, label = body()
    hashes = []
    for number, order in enumerate(itertools.islice(StorageOrder.every(), 0, 48, 9)):
        folder = tmp_path / str(number)
        pack_of(folder)
        turn = np.eye(4)
        for axis, (old, back) in enumerate(zip(order.axes, order.backwards, strict=True)):
            turn[:3, axis] = -np.eye(3)[old] if back else np.eye(3)[old]
            turn[old, 3] = SHAPE[old] - 1 if back else 0
        turn[3] = (0, 0, 0, 1)
        for kind, data in (("image", image + 5), ("label", label)):
            write_nifti(folder / f"{kind}_2.nii.gz", stored(data, order), AFFINE @ turn)
        support = load_support_set(folder)
        assert len(support.scans) == 2
        hashes.append(content_hash(build_support_pack(ContrastNetwork(), support, spatial_size=24)))
    assert len(set(hashes)) == 1
