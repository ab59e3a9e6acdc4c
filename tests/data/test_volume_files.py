"""Scans and labels of other formats than NIfTI; masks of them are NIfTI on the same grid."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from volume_samples import ras_affine

from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.volumes import load_image, load_label, save_mask

# without shear, as ITK writes no other
AFFINE = ras_affine((0.9, 0.8, 3.0), (5, -7, 9), angle=0.3)
DATA = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
ITK_FORMATS = ("nrrd", "nhdr", "mha", "mhd")


def write(path: Path, data: np.ndarray = DATA) -> Path:
    if path.suffix in (".mgz", ".mgh"):
        nibabel.save(nibabel.MGHImage(data, AFFINE), path)
        return path
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((np.diag([-1, -1, 1]) @ AFFINE[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((np.diag([-1, -1, 1]) @ AFFINE[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", ["mgz", "mgh", *ITK_FORMATS, "seg.nrrd"])
def test_voxels_place_and_mask(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"image_1.{ending}")
    volume = load_image(path)
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    label = load_label(write(tmp_path / f"label_1.{ending}", DATA // 20), volume)
    np.testing.assert_array_equal(label.data, DATA // 20)
    mask = nibabel.load(save_mask(tmp_path / "mask.nii.gz", DATA // 20, like=volume))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), DATA // 20)
    np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-5)


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0005\n\n")
    with pytest.raises(DataError, match="needs SimpleITK; install it by 'pip install SimpleITK'"):
        load_image(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        ("mha", "ElementDataFile = /etc/passwd"),
        ("mhd", "ElementDataFile = ../a.raw"),
        ("mhd", "elementdatafile : ..\\a.raw"),
        ("mhd", "ElementDataFile = LIST"),
        ("mhd", "ElementDataFile = other.raw"),
        ("mhd", ""),
        ("nrrd", "data file: /etc/passwd"),
        ("nhdr", "datafile: ../a.raw"),
        ("nhdr", "data file: LIST 2"),
        ("nrrd", "# " + "x" * (1 << 20)),
    ],
)
def test_a_header_cannot_name_a_file_elsewhere(tmp_path: Path, ending: str, line: str) -> None:
    head = "NRRD0005\ntype: uchar\n" if ending.startswith("n") else "NDims = 3\n"
    (tmp_path / f"a.{ending}").write_text(f"{head}{line}\ndata file: /etc/passwd\n\n"[:1200000])
    with pytest.raises(DataError, match="takes its voxels from other places than a file of its"):
        load_image(tmp_path / f"a.{ending}")


def test_a_segmentation_of_several_layers_is_one_sentence(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    layers = np.zeros((5, 4, 3, 2), np.uint8)  # two layers
    sitk.WriteImage(sitk.GetImageFromArray(layers, isVector=True), str(tmp_path / "a.seg.nrrd"))
    with pytest.raises(DataError, match="segments overlap several layers.; save one per file"):
        load_label(tmp_path / "a.seg.nrrd")


@pytest.mark.parametrize("ending", ["mgz", *ITK_FORMATS])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, ending: str) -> None:
    if ending != "mgz":
        pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    (tmp_path / f"a.{ending}").write_text("NRRD0005\nElementDataFile = LOCAL\nno volume\n\n")
    with pytest.raises(DataError, match="damaged") as raised:
        load_image(tmp_path / f"a.{ending}")
    assert str(raised.value).startswith(f"{tmp_path / f'a.{ending}'}: ")


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_the_hash_holds_the_voxels_too(tmp_path: Path, ending: str) -> None:
    header = write(tmp_path / f"image_1.{ending}")
    before = file_hash(header), header.read_bytes()
    write(header, DATA + 1)
    assert header.read_bytes() == before[1] and file_hash(header) != before[0]
