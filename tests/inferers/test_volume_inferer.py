from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import AFFINE, block_image, block_label, write_nifti, write_scan
from fake_network import Intensities, IntensityNetwork
from monai.data import MetaTensor

from fsmis_components.data.volumes import Volume
from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import SupportPack, build_support_pack, load_support_set


@pytest.fixture
def network() -> IntensityNetwork:
    return IntensityNetwork()


@pytest.fixture
def pack(tmp_path: Path, network: IntensityNetwork) -> SupportPack:
    write_scan(tmp_path, 1, block_label({1: 3, 2: 300}))
    return build_support_pack(network, load_support_set(tmp_path), spatial_size=24)


@pytest.fixture
def query() -> Volume:
    return Volume(block_image(seed=5), AFFINE)


def expected_label() -> np.ndarray:
    return block_label({1: 3, 2: 300})


def test_values_and_grid_of_the_scan(
    pack: SupportPack, network: IntensityNetwork, query: Volume
) -> None:
    result = VolumeInferer(pack, uncertainty=True).segment_volume(query, network.train())
    assert result.label.dtype == np.int32
    np.testing.assert_array_equal(result.label, expected_label())
    assert result.uncertainty is not None and result.uncertainty.dtype == np.uint8
    assert result.uncertainty.shape == query.shape
    # two structures and the background: never surer than 1, never worse than a draw of three
    assert result.uncertainty.max() <= 255 * 2 / 3
    assert network.training  # left as it came


def test_batches_change_nothing(
    pack: SupportPack, network: IntensityNetwork, query: Volume
) -> None:
    inferers = (VolumeInferer(pack, batch_size=size) for size in (1, 5))
    one, other = (each.segment_volume(query, network).label for each in inferers)
    np.testing.assert_array_equal(one, other)


# pixels per pixel of the support, and slices: finer, not square, overlapping, with gaps
@pytest.mark.parametrize("finer", [(2, 2, 1), (2, 3, 1), (1, 2, 1), (1, 1, 3), (1, 1, 1 / 2)])
def test_other_grids_than_the_support(
    pack: SupportPack, network: IntensityNetwork, finer: tuple[float, float, float]
) -> None:
    def on_grid(data: np.ndarray) -> np.ndarray:
        for axis, factor in enumerate(finer):
            every = round(1 / factor) if factor < 1 else 1
            data = data.repeat(max(1, round(factor)), axis).take(
                range(0, data.shape[axis] * max(1, round(factor)), every), axis
            )
        return data

    affine = AFFINE @ np.diag([*(1 / factor for factor in finer), 1])
    scan = Volume(on_grid(block_image(seed=5)), affine)
    label = VolumeInferer(pack).segment_volume(scan, network).label
    wanted = on_grid(expected_label())
    for value in (3, 300):
        overlap = 2 * ((label == value) & (wanted == value)).sum()
        assert overlap / ((label == value).sum() + (wanted == value).sum()) > 0.9


def test_a_structure_that_the_support_cuts_off_goes_on(
    tmp_path: Path, network: IntensityNetwork, query: Volume
) -> None:
    label = block_label()
    write_nifti(tmp_path / "image_1.nii.gz", block_image()[..., :8])
    write_nifti(tmp_path / "label_1.nii.gz", label[..., :8])
    pack = build_support_pack(network, load_support_set(tmp_path), spatial_size=24)
    found = VolumeInferer(pack).segment_volume(query, network).label
    behind = label[..., 8:] > 0
    assert behind.any() and (found[..., 8:][behind] == label[..., 8:][behind]).mean() > 0.9
    assert not found[..., 11:].any()


class Pointwise(IntensityNetwork):
    """Keeps the size of the slices that it is shown."""

    pointwise, stride = True, 1

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, int]] = []

    def segment(self, features: Intensities, *rest: object) -> torch.Tensor:
        self.shown.append(features.image_size)
        return super().segment(features, *rest)


def test_slices_are_segmented_only_around_what_is_expected(tmp_path: Path) -> None:
    wide = (64, 64, 12)
    label = block_label(shape=wide)
    body = np.pad(np.full((60, 60, 12), 20.0, np.float32), ((2, 2), (2, 2), (0, 0)))
    write_nifti(tmp_path / "image_1.nii.gz", block_image(wide) + body)
    write_nifti(tmp_path / "label_1.nii.gz", label)
    network = Pointwise()
    pack = build_support_pack(network, load_support_set(tmp_path), spatial_size=64)
    found = VolumeInferer(pack).segment_volume(Volume(block_image(wide, 5) + body, AFFINE), network)
    np.testing.assert_array_equal(found.label, label)
    assert network.shown and all(h * w < 64 * 64 / 2 for h, w in network.shown)


def test_monai_door(pack: SupportPack, network: IntensityNetwork, query: Volume) -> None:
    image = MetaTensor(torch.from_numpy(query.data)[None, None], affine=torch.as_tensor(AFFINE))
    output = VolumeInferer(pack)(image, network)
    assert isinstance(output, MetaTensor) and output.shape == image.shape
    assert not output.is_floating_point()
    assert torch.equal(output.affine, image.affine)
    np.testing.assert_array_equal(output[0, 0].numpy(), expected_label())
