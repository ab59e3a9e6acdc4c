"""The weights and the support pack in each bundle: they fit each other and they work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import AFFINE, block_image, block_label, write_scan
from bundle_folders import REFERENCE, REPOSITORY, build_network
from scipy.spatial.transform import Rotation
from torch import nn

from fsmis_components import load_bundle
from fsmis_components.data.cases import find_cases, select_cases
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.data.weights import fill_network
from fsmis_components.evaluation.metrics import dice_percent
from fsmis_components.evaluation.protocols import RULES, answer, load_query
from fsmis_components.evaluation.subjects.bundle import NetworkSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import (
    SupportPack,
    build_support_pack,
    load_support_set,
    support_set_of_cases,
)


def shipped(bundle: Path) -> nn.Module:
    network = build_network(bundle)
    fill_network(network, bundle / "models" / "model.pt")
    return network.eval()


@pytest.fixture(scope="module")
def network(bundle: Path) -> nn.Module:
    return shipped(bundle)


@pytest.fixture(scope="module")
def one_network() -> nn.Module:
    """For how scans are read, which is the same for all networks."""
    return shipped(REFERENCE)


@pytest.fixture(scope="module")
def pack(bundle: Path) -> SupportPack:
    return SupportPack.load(bundle / "models" / "support_pack.safetensors")


def test_only_one_file_of_weights_and_a_small_one(bundle: Path) -> None:
    models = bundle / "models"
    assert [path.name for path in models.glob("*.pt")] == ["model.pt"]
    assert (models / "model.pt").stat().st_size < 25e6


def test_one_labelled_scan_segments_another(network: nn.Module, fsmis_data_dir: Path) -> None:
    """Patients that no training has seen with a label: far above laying the mask on the scan."""
    cases = find_cases(fsmis_data_dir / "chaos_t2", labels="required")
    support = support_set_of_cases(select_cases(cases, [5]))
    grid = choose_slice_grid(support.scans[0].image)
    query = load_query(select_cases(cases, [22])[0], [1, 2, 3, 4], grid)
    means = []
    for subject in (NetworkSubject(network), MaskCopy()):
        found = answer(subject, "ep1-alp", support, query, RULES["ep1-alp"])
        pairs = zip(found.predicted.swapaxes(0, 1), found.truth.swapaxes(0, 1), strict=True)
        means.append(np.mean([dice_percent(*pair) for pair in pairs]))
    assert means[0] > means[1] + 10


def test_the_default_pack_segments_without_any_support(
    network: nn.Module, pack: SupportPack, fsmis_data_dir: Path
) -> None:
    image = load_image(fsmis_data_dir / "chaos_t2" / "image_1.nii.gz")
    found = VolumeInferer(pack).segment_volume(image, network).label
    assert set(np.unique(found).tolist()) == {0, 1, 2, 3, 4}


def test_a_scans_own_intensities_improve_its_mask(
    one_network: nn.Module, fsmis_data_dir: Path
) -> None:
    """By two points at least; the weights saw neither of the two patients."""
    cases = find_cases(fsmis_data_dir / "chaos_t2", labels="required")
    pack = build_support_pack(one_network, support_set_of_cases(select_cases(cases, [5])))
    query = select_cases(cases, [22])[0]
    image = load_image(query.image)
    truth = np.asarray(load_label(query.label, image).data)
    means = []
    for intensities in (False, True):
        inferer = VolumeInferer(pack, steps={"intensity_model": intensities})
        found = inferer.segment_volume(image, one_network).label
        means.append(
            np.mean([dice_percent(found == value, truth == value) for value in range(1, 5)])
        )
    assert means[1] > means[0] + 2


def test_an_oblique_heart_is_segmented_as_the_plain_one(
    one_network: nn.Module, fsmis_data_dir: Path
) -> None:
    """Short-axis hearts lie near 45 degrees; slices are those that the scanner acquired."""
    network = one_network
    cases = find_cases(fsmis_data_dir / "acdc", labels="required")
    support = support_set_of_cases(select_cases(cases, ["patient001_frame01"]))
    query = load_image(select_cases(cases, ["patient002_frame01"])[0].image)
    pack = build_support_pack(network, support)
    moves = {"registration": False}
    bent = VolumeInferer(pack).segment_volume(query, network).label
    plain = VolumeInferer(pack, steps=moves).segment_volume(query, network).label
    assert plain.any()
    scans = tuple(
        replace(scan, image=turned(scan.image, 1, -45), label=turned(scan.label, 1, -45))
        for scan in support.scans
    )
    pack = build_support_pack(network, replace(support, scans=scans))
    assert pack.grid.directions is not None
    tilted = turned(turned(query, 1, -45), 2, 20)
    moved = VolumeInferer(pack, steps=moves).segment_volume(tilted, network).label
    assert np.array_equal(moved, plain)
    # slices may follow each other in reverse, and a registration adds them up in their order
    again = VolumeInferer(pack).segment_volume(tilted, network).label
    for value in (1, 2, 3):
        assert dice_percent(again == value, bent == value) > 99


def test_a_scan_without_orientation_is_segmented_as_the_plain_one(
    one_network: nn.Module, fsmis_data_dir: Path
) -> None:
    """Transposed, upside down and without a header: the image tells how it is read."""
    network = one_network
    pack = SupportPack.load(REFERENCE / "models" / "support_pack.safetensors")
    image = load_image(fsmis_data_dir / "chaos_t2" / "image_15.nii.gz")
    inferer = VolumeInferer(pack)
    plain = inferer.segment_volume(image, network).label
    x, y, z = image.spacing
    data = np.ascontiguousarray(np.transpose(image.data, (2, 1, 0))[::-1, ::-1])
    unknown = Volume(data, np.diag([z, y, x, 1.0]), None, oriented=False)
    found = inferer.segment_volume(unknown, network)
    assert np.array_equal(found.label, np.transpose(plain, (2, 1, 0))[::-1, ::-1])
    assert "it was read with slices along the first" in found.warnings[0]


def turned(volume: Volume, axis: int, degrees: float) -> Volume:
    """The same voxels with a header that is turned about an anatomical axis."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.eye(3)[axis] * degrees, degrees=True).as_matrix()
    return replace(volume, affine=turn @ volume.affine)


def test_half_precision_serves_support_and_queries(network: nn.Module, tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    pack = build_support_pack(network, load_support_set(tmp_path), spatial_size=64, amp=True)
    assert all(not t.is_floating_point() or t.dtype == torch.float32 for t in pack.state.values())
    query = Volume(block_image(seed=5), AFFINE)
    found = VolumeInferer(pack, amp=True).segment_volume(query, network).label
    assert set(np.unique(found).tolist()) <= {0, 1, 2} and found.any()


@pytest.mark.slow
def test_a_patient_low_in_a_wide_field_of_view_is_found() -> None:
    """The scans of the first page: other patients, scanners and slices than any training's."""
    example = REPOSITORY / "tools" / "example_ct"
    found = load_bundle("ssl_alpnet").segment(
        example / "scans" / "image_2.nii.gz", example / "labelled"
    )
    truth = np.asarray(load_label(example / "scans" / "label_2.nii.gz").data)
    liver, spleen, stomach = (
        dice_percent(found.label == value, truth == value) for value in (1, 2, 3)
    )
    assert liver > 90 and spleen > 70 and stomach > 60
    assert list(found.expected_dice) == ["liver", "spleen", "stomach"] and not found.warnings


@pytest.mark.slow
def test_a_scan_that_shows_another_length_of_the_body(fsmis_data_dir: Path, tmp_path: Path) -> None:
    folder = fsmis_data_dir / "totalsegmentator"  # 30 and 112 slices of 3 mm, cut along all axes
    for kind, end in (("image", ""), ("label", "_seg")):
        source = folder / f"example_ct_sm{end}.nii.gz"
        (tmp_path / f"{kind}_1.nii.gz").write_bytes(source.read_bytes())
    structures = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 5}
    bundle = load_bundle("ssl_alpnet", self_test=False)
    pack = bundle.support(tmp_path, support_ids=["1"], structures=structures)
    found = bundle.segment(folder / "example_ct.nii.gz", pack).label
    truth = np.asarray(load_label(folder / "example_ct_seg.nii.gz").data)
    # 0 to 42 where the middles of both were laid on each other; the other way round likewise
    assert min(dice_percent(found == v, truth == v) for v in structures.values()) > 75


@pytest.mark.slow
def test_a_smaller_field_of_view_than_the_support_s(fsmis_data_dir: Path) -> None:
    folder = fsmis_data_dir / "chaos_t2"
    image = load_image(folder / "image_22.nii.gz")
    label = np.asarray(load_label(folder / "label_22.nii.gz").data)
    margins = [size // 10 for size in image.shape[:2]]
    window = tuple(slice(cut, -cut) for cut in margins)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [*margins, 0]
    part = Volume(np.asarray(image.data[window]), affine)
    bundle = load_bundle("ssl_alpnet")
    found = bundle.segment(part, load_support_set(folder, support_ids=["31"])).label
    truth = label[window]
    dice = [dice_percent(found == value, truth == value) for value in (1, 2, 3, 4)]
    assert min(dice) > 70  # 24 to 49 where the same cells of both slices are compared
