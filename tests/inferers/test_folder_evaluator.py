from functools import partial
from pathlib import Path

import folder_runs
import nibabel
import numpy as np
import pytest
from block_scans import block_image, block_label, write_scan
from fake_network import IntensityNetwork
from folder_runs import read_cases, sentence
from html_pages import checked_page
from monai.transforms import Compose, ScaleIntensityd

import fsmis_components
from fsmis_components.support import weights_hash
from fsmis_components.transforms import LoadVolumed


@pytest.fixture
def root(tmp_path: Path, blank_overlays: None) -> Path:
    """Support s, two good queries q; the output folder o is not there yet."""
    write_scan(tmp_path / "s", 1, block_label())
    for number in (2, 3):
        write_scan(tmp_path / "q", number)
    return tmp_path


# without z-matching every mask is known
evaluator = partial(folder_runs.evaluator, inferer={"steps": {"z_matching": False}})


def test_writes_masks_pictures_and_table(root: Path) -> None:
    folder_runs.evaluator(root, inferer={"uncertainty": True, "steps": {"z_matching": False}}).run()
    output = root / "o"
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.*")) == [
        ".writing",
        "cases.csv",
        "image_2_seg.nii.gz",
        "image_2_uncertainty.nii.gz",
        "image_3_seg.nii.gz",
        "image_3_uncertainty.nii.gz",
        "overlays/image_2.png",
        "overlays/image_3.png",
        "overlays/masks/image_2.png",
        "overlays/masks/image_3.png",
        "overlays/scans/image_2.jpg",
        "overlays/scans/image_3.jpg",
        "report.html",
        "run.json",
    ]
    mask = nibabel.load(output / "image_2_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), block_label())
    np.testing.assert_array_equal(mask.affine, nibabel.load(root / "q" / "image_2.nii.gz").affine)
    uncertainty = nibabel.load(output / "image_2_uncertainty.nii.gz")
    assert uncertainty.get_data_dtype() == np.uint8 and uncertainty.shape == mask.shape
    rows = read_cases(output)
    assert [row["case"] for row in rows] == ["image_2", "image_3"]
    assert [row["status"] for row in rows] == ["done", "done"]
    # 8 x 6 x 9 voxels of 4 cubic millimetres
    assert float(rows[0]["structure_1_ml"]) == pytest.approx(1.728)


def test_foreign_files_are_never_overwritten(root: Path) -> None:
    foreign = root / "o" / "image_3_seg.nii.gz"
    foreign.parent.mkdir()
    foreign.write_bytes(b"a manual mask")
    assert str(foreign) in sentence(evaluator(root).run)
    assert foreign.read_bytes() == b"a manual mask"


def test_the_report_covers_earlier_runs_and_failures(root: Path) -> None:
    evaluator(root).run()
    page = root / "o" / "report.html"
    first = page.read_text(encoding="utf-8")
    (root / "q" / "image_4.nii.gz").write_bytes(b"no NIfTI")
    sentence(evaluator(root).run)
    text = page.read_text(encoding="utf-8")
    links = checked_page(text)
    assert links.addresses == ["overlays/image_2.png", "overlays/image_3.png"]
    assert all((root / "o" / address).is_file() for address in links.loaded)
    assert len(links.loaded) == 4 and text.count('data-slices="12"') == 2
    assert "image_4.nii.gz: not a NIfTI" in text and "image_4" not in first
    weights = weights_hash(IntensityNetwork())
    for fact in ("IntensityNetwork", str(root / "s"), weights[:12], "z_matching", "#e6550d"):
        assert fact in text, fact
    assert weights not in text and fsmis_components.__version__ in text


def test_postprocessing_reaches_the_file(root: Path) -> None:
    def only_two(data: dict) -> dict:
        assert data["pred"].shape == (1, *block_label().shape)
        return {**data, "pred": data["pred"] * (data["pred"] == 2)}

    evaluator(root, postprocessing=only_two).run()
    mask = np.asarray(nibabel.load(root / "o" / "image_2_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, block_label({2: 2}))
    assert float(read_cases(root / "o")[0]["structure_1_ml"]) == 0


def test_preprocessing_of_others_is_refused(root: Path) -> None:
    run = evaluator(root)
    run.preprocessing = Compose([LoadVolumed("image"), ScaleIntensityd("image")])
    assert "ScaleIntensityd does not run on a folder of scans" in sentence(run.run)
    assert not (root / "o").exists()


def test_what_is_not_used_is_told_at_the_start_and_in_the_report(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "q" / "scan_9.nii.gz").write_bytes(b"")
    (root / "q" / "<b>.dcm").write_bytes(b"")
    run = evaluator(root)
    run.progress = True
    run.run()
    lines = capsys.readouterr().out.splitlines()
    first = lines.index(f"{root / 'q'}: 2 not used")
    assert lines[first + 1].startswith("  <b>.dcm: a DICOM slice beside scans")
    assert lines[first + 2].startswith("  scan_9.nii.gz: not called image_<id>")
    text = (root / "o" / "report.html").read_text(encoding="utf-8")
    checked_page(text)
    assert "<h2>Not used</h2>" in text and "scan_9.nii.gz" in text and "&lt;b&gt;.dcm" in text
    assert [row["case"] for row in read_cases(root / "o")] == ["image_2", "image_3"]


def test_scans_of_one_name_in_subfolders_get_masks_of_their_own(root: Path) -> None:
    queries = root / "bids"
    for subject in ("sub-01", "sub-02"):
        (queries / subject).mkdir(parents=True)
        block = nibabel.MGHImage(block_image(), np.diag([1.0, 1.0, 4.0, 1.0]))
        nibabel.save(block, queries / subject / "T1.mgz")
    evaluator(root, queries="bids").run()
    for subject in ("sub-01", "sub-02"):
        mask = nibabel.load(root / "o" / f"{subject}_T1_seg.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), block_label())


def test_a_scan_of_another_modality_is_told_in_row_report_and_on_screen(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # soft tissue between fat and air, in Hounsfield units
    air = np.select([np.arange(20) < 5, np.arange(20) < 9], [-1000, -100], 0)[:, None]
    ct = np.rint(block_image() + air).astype(np.int16)
    write_scan(root / "s", 1, block_label(), ct)
    for number, image in ((2, ct + 1024), (3, block_image() + 50)):
        write_scan(root / "q", number, image=image)
    folder_runs.evaluator(root, progress=True).run()
    rows = read_cases(root / "o")
    assert [row["modality"] for row in rows] == ["ct, stored with an offset of 1024", "ct"]
    said = "is taken as CT, as the support is, but holds no Hounsfield units"
    assert rows[0]["warning"] == "" and said in rows[1]["warning"]
    assert said in (root / "o" / "report.html").read_text()
    shown = capsys.readouterr()
    assert f"image_3: {rows[1]['warning']}" in shown.out + shown.err
    mask = np.asarray(nibabel.load(root / "o" / "image_2_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(mask == 2, block_label() == 2)
