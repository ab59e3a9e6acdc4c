"""Small made-up downloads in the layouts of the public sources."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import write_nifti
from dicom_series import write_dicom
from PIL import Image

from fsmis_components.__main__ import main
from fsmis_components.data.cases import find_cases
from fsmis_components.support.support_set import label_names

SHAPE = (40, 32, 5)
MM = np.diag([1.5, 1.5, 8.0, 1.0])


def made_up(values: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An image (X, Y, Z) and a label with one block of each value, none like another."""
    label = np.zeros(SHAPE, np.int16)
    for index, value in enumerate(values):
        label[3 + 9 * index : 9 + 9 * index, 5 + 3 * index : 20, index % 3 : 4] = value
    return (label + np.arange(SHAPE[0])[:, None, None]).astype(np.int16), label


def write_chaos(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """One case, its files in the opposite order of the slices; image and numbers 1 to 4."""
    image, label = made_up((1, 2, 3, 4))
    series = folder / "MR" / "5" / "T2SPIR"
    positions = tuple(8.0 * index for index in range(SHAPE[2]))
    write_dicom(series / "DICOM_anon", image.T, positions, spacing=(1.5, 1.5), intercept=0)
    (series / "Ground").mkdir()
    for index in range(SHAPE[2]):
        picture = Image.fromarray((63 * label[..., index].T).astype(np.uint8))
        picture.save(series / "Ground" / f"IMG-{SHAPE[2] - index}.png")
    (folder / "MR" / "6" / "T2SPIR" / "DICOM_anon").mkdir(parents=True)  # a test case: no labels
    return image, label


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_chaos_as_it_was_stored(tmp_path: Path) -> None:
    image, label = write_chaos(tmp_path / "raw")
    output = tmp_path / "out"
    line = ["prepare", "chaos_t2", str(tmp_path / "raw"), "--output", str(output)]
    assert main([*line, "--geometry", "stored"]) == 0
    np.testing.assert_array_equal(voxels(output / "image_5.nii.gz"), image)
    np.testing.assert_array_equal(voxels(output / "label_5.nii.gz"), label)
    written = nibabel.load(output / "image_5.nii.gz")
    np.testing.assert_allclose(np.diag(written.affine), [-1.5, -1.5, 8, 1])
    [case] = find_cases(output, labels="required")
    assert case.name == "5"
    assert label_names(output) == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    assert (output / "overlays" / "image_5.png").stat().st_size > 1000


def test_chaos_as_papers_cut_it_and_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, label = write_chaos(tmp_path / "raw")
    output = tmp_path / "out"
    line = ["prepare", "chaos_t2", str(tmp_path / "raw"), "--output", str(output)]
    assert main(line) == 0
    image, made = (nibabel.load(output / f"{k}_5.nii.gz") for k in ("image", "label"))
    assert image.shape == made.shape and image.shape[:2] == (256, 256)
    np.testing.assert_allclose(image.header.get_zooms(), (1.25, 1.25, 7.7), rtol=1e-5)
    np.testing.assert_allclose(image.affine, made.affine)
    # the middle of each structure is where it was in the patient
    before = np.diag([-1.5, -1.5, 8.0, 1.0])
    before[:3, 3] = [-10, -20, 30]
    for value in range(1, 5):
        old = nibabel.affines.apply_affine(before, np.argwhere(label == value).mean(0))
        new = nibabel.affines.apply_affine(
            made.affine, np.argwhere(np.asarray(made.dataobj) == value).mean(0)
        )
        np.testing.assert_allclose(new, old, atol=1.0)
    [row] = table(output)
    millilitres = np.count_nonzero(label == 1) * 1.5 * 1.5 * 8 / 1000
    assert float(row["liver"]) == pytest.approx(millilitres, rel=0.3)

    times = {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    assert main(line) == 0
    assert times == {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    (output / "label_5.nii.gz").unlink()
    assert main(line) == 0 and (output / "label_5.nii.gz").is_file()
    capsys.readouterr()
    assert main([*line, "--geometry", "stored"]) == 1
    assert "was made of another download or with another geometry" in capsys.readouterr().err


def test_label_pictures_that_do_not_fit_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_chaos(tmp_path / "raw")
    ground = tmp_path / "raw" / "MR" / "5" / "T2SPIR" / "Ground"
    line = ["prepare", "chaos_t2", str(tmp_path / "raw"), "--output", str(tmp_path / "out")]
    Image.fromarray(np.full(SHAPE[1::-1], 100, np.uint8)).save(ground / "IMG-2.png")
    assert main(line) == 1
    assert "IMG-2.png: no label picture of its slice" in capsys.readouterr().err
    (ground / "IMG-2.png").unlink()
    assert main(line) == 1
    assert "Ground: 4 label pictures of 5 slices" in capsys.readouterr().err
    assert main([*line[:2], str(ground), *line[3:]]) == 1
    assert "nothing of chaos_t2 lies here" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_btcv_acdc_and_cmr(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    raw = tmp_path / "raw"
    image, label = made_up((1, 6, 13))
    write_nifti(raw / "btcv" / "img" / "img0007.nii.gz", image, MM)
    write_nifti(raw / "btcv" / "label" / "label0007.nii.gz", label, MM)
    write_nifti(raw / "btcv" / "label" / "label0008.nii.gz", label, MM)
    heart, chambers = made_up((1, 2, 3))
    patient = raw / "acdc" / "training" / "patient001"
    write_nifti(patient / "patient001_4d.nii.gz", np.stack([heart, heart], -1), MM)
    for frame in ("frame01", "frame12"):
        write_nifti(patient / f"patient001_{frame}.nii.gz", heart, MM)
        write_nifti(patient / f"patient001_{frame}_gt.nii.gz", chambers, MM)
    _, manual = made_up((500, 200, 600))
    write_nifti(raw / "cmr" / "c0" / "patient3_C0.nii.gz", heart, MM)
    write_nifti(raw / "cmr" / "c0gt" / "patient3_C0_manual.nii.gz", manual, MM)

    def prepared(source: str) -> int:
        out = str(tmp_path / f"out_{source}")
        return main(["prepare", source, str(raw / source), "--output", out])

    assert prepared("btcv") == 1  # one image is missing, the other case is done
    assert "img0008.nii.gz" in capsys.readouterr().err
    made = nibabel.load(tmp_path / "out_btcv" / "label_7.nii.gz")
    np.testing.assert_allclose(made.header.get_zooms(), (1.75 * 1.5, 1.75 * 1.5, 8.0), rtol=1e-5)
    assert set(np.unique(np.asarray(made.dataobj))) == {0, 1, 6, 13}
    [row] = table(tmp_path / "out_btcv")
    assert row["case"] == "7" and "no gallbladder" in row["remark"]

    assert prepared("acdc") == 0
    names = [case.name for case in find_cases(tmp_path / "out_acdc", labels="required")]
    assert names == ["patient001_frame01", "patient001_frame12"]
    found = tmp_path / "out_acdc" / "label_patient001_frame12.nii.gz"
    np.testing.assert_array_equal(voxels(found), chambers)

    assert prepared("cmr") == 0
    found = voxels(tmp_path / "out_cmr" / "label_3.nii.gz")
    assert found.shape[:2] == (256, 256) and set(np.unique(found)) == {0, 1, 2, 3}
    x = {value: np.argwhere(found == value)[:, 0].mean() for value in (1, 2, 3)}
    assert x[1] < x[2] < x[3]  # 500, 200, 600 lay in this order


def test_any_folder_of_labelled_scans(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scans = tmp_path / "scans"
    image, label = made_up((1, 700))
    write_nifti(scans / "images" / "a.nii.gz", image, MM)
    write_nifti(scans / "labels" / "a.nii.gz", label, MM)
    turned = MM[:, [2, 0, 1, 3]]  # the slices lie along the first axis
    write_nifti(scans / "images" / "b.nii.gz", image.transpose(2, 0, 1), turned)
    write_nifti(scans / "labels" / "b.nii.gz", label.transpose(2, 0, 1), turned)
    write_nifti(scans / "images" / "c.nii.gz", image, MM)
    write_nifti(scans / "labels" / "c.nii.gz", label[:-1], MM)

    def prepared(out: str, *options: str) -> int:
        return main(["prepare", "folder", str(scans), "--output", str(tmp_path / out), *options])

    assert prepared("as_it_is") == 1  # one label lies on another grid, the other cases are done
    assert "c.nii.gz" in capsys.readouterr().err
    np.testing.assert_array_equal(voxels(tmp_path / "as_it_is" / "label_a.nii.gz"), label)
    names = {1: "structure_1", 700: "structure_700"}
    assert label_names(tmp_path / "as_it_is") == names

    assert prepared("fine", "--spacing", "1,1,4", "--size", "48") == 1
    made = {name: nibabel.load(tmp_path / "fine" / f"label_{name}.nii.gz") for name in "ab"}
    np.testing.assert_allclose(made["b"].header.get_zooms(), (1, 1, 4), rtol=1e-5)
    assert made["b"].shape[:2] == (48, 48)
    np.testing.assert_array_equal(*(np.asarray(each.dataobj) for each in made.values()))
    np.testing.assert_allclose(made["a"].affine, made["b"].affine)

    capsys.readouterr()
    assert prepared("wrong", "--spacing", "1,1") == 1
    assert "spacing: expected three lengths in mm" in capsys.readouterr().err
