import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from volume_samples import organ_label, ras_affine, save_nifti

from fsmis_components.data import packed_cases
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceGrid, SliceView, choose_slice_grid
from fsmis_components.data.intensity import (
    Normalisation,
    Normaliser,
    fit_normaliser,
    resolve_modality,
)
from fsmis_components.data.packed_cases import fit_packing, pack_cases
from fsmis_components.data.volumes import Volume, load_image, load_label

SHAPE = (20, 16, 9)


def volume(data: np.ndarray) -> Volume:
    return Volume(data, ras_affine())


def mr(seed: int = 0) -> np.ndarray:
    """A float scan from about 0 to 3000 with a few very bright voxels."""
    rng = np.random.default_rng(seed)
    data = rng.gamma(2.0, 300.0, SHAPE).astype(np.float32)
    data[3, 3, :5] = 1e5
    return data


def ct() -> np.ndarray:
    return np.random.default_rng(1).integers(-1024, 1500, SHAPE).astype(np.int16)


def write_case(folder: Path, name: str, image: np.ndarray, label: np.ndarray | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if label is not None:
        save_nifti(folder / f"label_{name}.nii.gz", label)
    return save_nifti(folder / f"image_{name}.nii.gz", image)


def packed(tmp_path: Path, image: np.ndarray, bits: int, **options: str) -> Volume:
    source = write_case(tmp_path / "source", "1", image).parent
    assert pack_cases(source, tmp_path / "packed", bits, say=lambda text: None, **options) == []
    return load_image(tmp_path / "packed" / "image_1.nii.gz")


def normaliser(scan: Volume) -> Normaliser:
    return fit_normaliser(scan, Normalisation(resolve_modality(scan)))


def test_values_of_a_packing():
    data = np.array([-1100.0, -200.0, -199.5, 0.0, 274.0, 275.0, 900.0]).reshape(7, 1, 1)
    packing = fit_packing(volume(data), 8, "ct")
    assert packing.slope == pytest.approx(475 / 255, rel=1e-6)
    assert packing.intercept == -200.0
    # 0 HU: 200 / (475 / 255) = 107.4; -199.5 HU: 0.27
    assert packing(data).ravel().tolist() == [0, 0, 0, 107, 254, 255, 255]
    assert packing(data).dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        ((0, 255), 8, (1.0, 0.0, np.uint8)),
        ((100, 355), 8, (1.0, 100.0, np.uint8)),
        ((-1024, 3071), 16, (1.0, -1024.0, np.uint16)),
        ((0.0, 65535.0), 16, (1.0, 0.0, np.uint16)),
    ],
)
def test_whole_numbers_that_fit_are_kept(values: tuple, bits: int, expected: tuple):
    data = np.linspace(*values, 12).round().reshape(3, 2, 2)
    packing = fit_packing(volume(data), bits)
    stored = packing(data)
    assert (packing.slope, packing.intercept, stored.dtype.type) == expected
    assert np.array_equal(stored * packing.slope + packing.intercept, data)


@pytest.mark.parametrize("bits", [8, 16])
def test_mr_changes_by_half_a_step_at_most(tmp_path: Path, bits: int):
    image = mr()
    scan = packed(tmp_path, image, bits)
    upper = np.quantile(image, 0.995)
    step = (upper - image.min()) / (2**bits - 1)
    kept = image <= upper
    difference = np.abs(np.asarray(scan.data, np.float64) - image)
    assert difference[kept].max() <= step / 2 + 2e-4  # float32 near 2,400
    assert difference[kept].max() > step * 0.4
    assert np.asarray(scan.data)[~kept] == pytest.approx(upper, rel=1e-5)
    assert np.array_equal(scan.affine, ras_affine().astype(np.float32))
    unscaled = nibabel.load(tmp_path / "packed" / "image_1.nii.gz").dataobj.get_unscaled()
    assert unscaled.dtype == {8: np.uint8, 16: np.uint16}[bits]
    assert (unscaled.min(), unscaled.max()) == (0, 2**bits - 1)


def test_mr_normalised_slices_hardly_differ(tmp_path: Path):
    scan = packed(tmp_path, mr(), 8)
    original = volume(mr())
    slices = [SliceView(v, SliceGrid(2, None, 20)).slices(0, 9) for v in (scan, original)]
    first, second = (normaliser(v)(s) for v, s in zip((scan, original), slices, strict=True))
    assert first.shape == (9, 1, 20, 16)
    assert 0 < (first - second).abs().max() < 0.02


def test_ct_in_16_bit_is_exact(tmp_path: Path):
    scan = packed(tmp_path, ct(), 16)
    assert np.array_equal(np.asarray(scan.data), ct())
    assert normaliser(scan) == normaliser(volume(ct()))


def test_ct_in_8_bit_keeps_the_window_and_is_known_as_ct(tmp_path: Path):
    scan = packed(tmp_path, ct(), 8)
    assert resolve_modality(scan) == "ct"
    inside = (ct() >= -125) & (ct() <= 275)
    assert np.abs(np.asarray(scan.data) - ct())[inside].max() <= 475 / 255 / 2 + 1e-4
    assert np.asarray(scan.data).min() == -200.0


def test_a_stated_modality_is_followed(tmp_path: Path):
    shifted = (ct() + 1024).astype(np.int16)  # a CT that begins at 0: its numbers say MR
    scan = packed(tmp_path, shifted, 8, modality="ct")
    assert np.asarray(scan.data).max() == pytest.approx(275, rel=1e-6)


@pytest.mark.parametrize("value", [7.25, 0.0])
def test_a_constant_scan(tmp_path: Path, value: float):
    scan = packed(tmp_path, np.full(SHAPE, value, np.float32), 8)
    assert np.asarray(scan.data).tolist() == np.full(SHAPE, value).tolist()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three cases: float MR with a label in float, one without a label, whole numbers."""
    folder = tmp_path / "dataset"
    label = organ_label(SHAPE)
    write_case(folder, "1", mr(1), label.astype(np.float32))
    write_case(folder, "2", mr(2))
    write_case(folder, "10", np.arange(label.size).reshape(SHAPE).astype(np.int16) // 20, label)
    return folder


def test_the_folder_is_read_in_place_of_the_original(dataset: Path, tmp_path: Path):
    said: list[str] = []
    assert pack_cases(dataset, tmp_path / "packed", say=said.append) == []
    originals, copies = find_cases(dataset), find_cases(tmp_path / "packed")
    assert [case.name for case in copies] == [case.name for case in originals] == ["1", "2", "10"]
    assert [case.label is None for case in copies] == [False, True, False]
    for original, copy in zip(originals, copies, strict=True):
        if original.label is not None and copy.label is not None:
            label = load_label(copy.label, load_image(copy.image))
            assert np.array_equal(label.data, load_label(original.label).data)
            assert nibabel.load(copy.label).get_data_dtype() == np.uint8
    assert len(said) == 1 and "3 of 3 cases" in said[0] and "in place of" in said[0]


def test_the_record_names_sources_and_copies(dataset: Path, tmp_path: Path):
    output = tmp_path / "packed"
    pack_cases(dataset, output, 8)
    record = json.loads((output / "packed.json").read_text())
    assert (record["bits"], record["source"], record["modality"]) == (8, "dataset", "auto")
    assert sorted(record["cases"]) == ["1", "10", "2"]
    case = record["cases"]["1"]
    for kind in ("image", "label"):
        assert case["source_sha256"][kind] == file_hash(dataset / f"{kind}_1.nii.gz")
        assert case["sha256"][kind] == file_hash(output / f"{kind}_1.nii.gz")
    assert list(record["cases"]["2"]["sha256"]) == ["image"]
    assert record["cases"]["10"]["slope"] == 1.0


def test_finished_cases_are_not_packed_again(dataset: Path, tmp_path: Path, monkeypatch):
    output = tmp_path / "packed"
    real, made = packed_cases._write_image, []

    def write(path: Path, *args: object) -> None:
        made.append(path.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        real(path, *args)

    monkeypatch.setattr(packed_cases, "_write_image", write)
    with pytest.raises(KeyboardInterrupt):
        pack_cases(dataset, output)
    assert pack_cases(dataset, output) == []
    assert made == ["image_1.nii.gz", "image_2.nii.gz", "image_2.nii.gz", "image_10.nii.gz"]
    made.clear()
    pack_cases(dataset, output)
    assert not made
    write_case(dataset, "2", mr(5))  # another scan of the same name
    (output / "label_10.nii.gz").unlink()
    made.append("first")
    made.append("second")
    pack_cases(dataset, output)
    assert made[2:] == ["image_2.nii.gz", "image_10.nii.gz"]
    assert (output / "label_10.nii.gz").is_file()


def test_a_bad_case_does_not_stop_the_others(dataset: Path, tmp_path: Path):
    write_case(dataset, "3", mr(3), organ_label((5, 5, 5)))
    (dataset / "image_4.nii.gz").write_bytes(b"no scan")
    said: list[str] = []
    failures = pack_cases(dataset, tmp_path / "packed", say=said.append)
    assert [failure.partition(":")[0] for failure in failures] == ["3", "4"]
    assert "shapes differ" in failures[0] and "not a NIfTI" in failures[1]
    assert [case.name for case in find_cases(tmp_path / "packed")] == ["1", "2", "10"]
    assert "2 of 5 cases were not packed" in said[1]


def test_nothing_of_others_is_overwritten(dataset: Path, tmp_path: Path):
    with pytest.raises(DataError, match="overwrite the dataset itself"):
        pack_cases(dataset, dataset)
    shutil.copytree(dataset, tmp_path / "other")
    with pytest.raises(DataError, match="scans that were not packed here"):
        pack_cases(dataset, tmp_path / "other")
    pack_cases(dataset, tmp_path / "packed", 8)
    with pytest.raises(DataError, match=r"other settings \(bits\)"):
        pack_cases(dataset, tmp_path / "packed", 16)
    (dataset / "image_2.nii.gz").unlink()
    with pytest.raises(DataError, match="holds case 2, which"):
        pack_cases(dataset, tmp_path / "packed", 8)
    (tmp_path / "packed" / "packed.json").write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        pack_cases(dataset, tmp_path / "packed", 8)


def test_rejects(dataset: Path, tmp_path: Path):
    with pytest.raises(DataError, match="bits: expected 8 or 16, got 12"):
        pack_cases(dataset, tmp_path / "packed", 12)
    with pytest.raises(DataError, match="modality: expected"):
        pack_cases(dataset, tmp_path / "packed", modality="pet")
    assert not (tmp_path / "packed").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        pack_cases(dataset, tmp_path / "file" / "packed")


def test_chaos_in_8_bit_is_small(fsmis_data_dir: Path, tmp_path: Path):
    source = fsmis_data_dir / "chaos_t2"
    assert pack_cases(source, tmp_path) == []
    files = list(tmp_path.iterdir())
    assert len(files) == 41
    assert sum(path.stat().st_size for path in files) < 32 * 2**20
    name = "image_1.nii.gz"
    scan, original = load_image(tmp_path / name), load_image(source / name)
    upper = np.quantile(np.asarray(original.data), 0.995)
    difference = np.abs(np.asarray(scan.data) - np.asarray(original.data))
    assert difference[np.asarray(original.data) <= upper].max() <= upper / 255 / 2 + 1e-3
    slices = [SliceView(v, choose_slice_grid(v)).slices(0, 37) for v in (scan, original)]
    first, second = (normaliser(v)(s) for v, s in zip((scan, original), slices, strict=True))
    assert (first - second).abs().max() < 0.02
