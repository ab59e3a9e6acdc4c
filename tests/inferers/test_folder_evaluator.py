from __future__ import annotations

import csv
import errno
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_image, block_label, write_nifti, write_scan
from fake_network import IntensityNetwork
from html_pages import checked_page
from monai.data import Dataset

import fsmis_components
from fsmis_components.inferers import FolderEvaluator, VolumeInferer, query_items
from fsmis_components.support import SupportSource, weights_hash


@pytest.fixture
def network() -> IntensityNetwork:
    return IntensityNetwork()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Support, two good queries and an output folder that is not there yet."""
    write_scan(tmp_path / "s", 1, block_label())
    for number in (2, 3):
        write_scan(tmp_path / "q", number)
    return tmp_path / "s", tmp_path / "q", tmp_path / "o"


def evaluator(
    network: IntensityNetwork, folders: tuple[Path, Path, Path], **settings: object
) -> FolderEvaluator:
    support, queries, output = folders
    postprocessing = settings.pop("postprocessing", None)
    settings = {"steps": {"z_matching": False}, **settings}  # so that every mask is known
    return FolderEvaluator(
        device="cpu",
        dataset=Dataset(query_items(queries)),
        network=network,
        inferer=VolumeInferer(SupportSource(support, spatial_size=24), **settings),  # type: ignore[arg-type]
        output_dir=output,
        postprocessing=postprocessing,
        progress=False,
    )


def table(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_writes_masks_pictures_and_table(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    evaluator(network, folders, uncertainty=True).run()
    output = folders[2]
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*.*")) == [
        "cases.csv",
        "image_2_seg.nii.gz",
        "image_2_uncertainty.nii.gz",
        "image_3_seg.nii.gz",
        "image_3_uncertainty.nii.gz",
        "overlays/image_2.png",
        "overlays/image_3.png",
        "report.html",
        "run.json",
    ]
    mask = nibabel.load(output / "image_2_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), block_label())
    np.testing.assert_array_equal(mask.affine, nibabel.load(folders[1] / "image_2.nii.gz").affine)
    doubt = nibabel.load(output / "image_2_uncertainty.nii.gz")
    assert doubt.get_data_dtype() == np.uint8 and doubt.shape == mask.shape
    rows = table(output)
    assert [(row["case"], row["status"]) for row in rows] == [
        ("image_2", "done"),
        ("image_3", "done"),
    ]
    # 8 x 6 x 9 voxels of 4 cubic millimetres
    assert float(rows[0]["structure_1_ml"]) == pytest.approx(1.728)


def test_a_bad_scan_does_not_stop_the_others(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    (folders[1] / "image_1.nii.gz").write_bytes(b"no NIfTI")
    broken = block_image()
    broken[3, 3, 3] = np.nan
    write_nifti(folders[1] / "image_4.nii.gz", broken)
    with pytest.raises(SystemExit) as raised:
        evaluator(network, folders).run()
    message = str(raised.value.code)
    assert message.startswith("2 of 4 scans failed") and "\n" not in message
    assert "image_1.nii.gz: not a NIfTI" in message and "NaN" in message
    rows = table(folders[2])
    assert [row["status"] for row in rows] == ["failed", "done", "done", "failed"]
    assert rows[0]["structure_1_ml"] == "" and "image_1.nii.gz" in rows[0]["message"]
    assert (folders[2] / "image_3_seg.nii.gz").exists()
    assert not (folders[2] / "image_4_seg.nii.gz").exists()


def test_foreign_files_are_never_overwritten(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    foreign = folders[2] / "image_3_seg.nii.gz"
    foreign.parent.mkdir()
    foreign.write_bytes(b"a manual mask")
    with pytest.raises(SystemExit) as raised:
        evaluator(network, folders).run()
    assert str(foreign) in str(raised.value.code)
    assert foreign.read_bytes() == b"a manual mask"


def test_the_report_covers_earlier_runs_and_failures(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    evaluator(network, folders).run()
    page = folders[2] / "report.html"
    first = page.read_text(encoding="utf-8")
    (folders[1] / "image_4.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(SystemExit):
        evaluator(network, folders).run()
    text = page.read_text(encoding="utf-8")
    assert checked_page(text).addresses == ["overlays/image_2.png", "overlays/image_3.png"]
    assert "image_4.nii.gz: not a NIfTI" in text and "image_4" not in first
    weights = weights_hash(network)
    for fact in ("IntensityNetwork", str(folders[0]), weights[:12], "z_matching", "#e6550d"):
        assert fact in text, fact
    assert weights not in text and fsmis_components.__version__ in text


def test_postprocessing_reaches_the_file(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    def only_two(data: dict) -> dict:
        assert data["pred"].shape == (1, *block_label().shape)
        return {**data, "pred": data["pred"] * (data["pred"] == 2)}

    evaluator(network, folders, postprocessing=only_two).run()
    mask = np.asarray(nibabel.load(folders[2] / "image_2_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, block_label({2: 2}))
    assert float(table(folders[2])[0]["structure_1_ml"]) == 0


def test_no_support_is_one_sentence(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    with pytest.raises(SystemExit) as raised:
        evaluator(network, (folders[0] / "nowhere", *folders[1:])).run()
    assert str(folders[0] / "nowhere") in str(raised.value.code)
    assert not folders[2].exists()


def test_a_scan_that_may_not_be_read_is_said_so(
    network: IntensityNetwork, folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def denied(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "image_3.nii.gz":  # root may read everything
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SystemExit) as raised:
        evaluator(network, folders).run()
    assert "image_3.nii.gz: cannot be read (Permission denied)" in str(raised.value.code)
    assert "damaged" not in str(raised.value.code)
    assert [row["status"] for row in table(folders[2])] == ["done", "failed"]


def test_what_is_not_used_is_told_at_the_start_and_in_the_report(
    network: IntensityNetwork, folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "scan_9.nii.gz").write_bytes(b"")
    (folders[1] / "<b>.dcm").write_bytes(b"")
    run = evaluator(network, folders)
    run.progress = True
    run.run()
    lines = capsys.readouterr().out.splitlines()
    first = lines.index(f"{folders[1]}: 2 not used")
    assert lines[first + 1].startswith("  <b>.dcm: a DICOM slice beside scans")
    assert lines[first + 2].startswith("  scan_9.nii.gz: not called image_<id>")
    text = (folders[2] / "report.html").read_text(encoding="utf-8")
    checked_page(text)
    assert "<h2>Not used</h2>" in text and "scan_9.nii.gz" in text and "&lt;b&gt;.dcm" in text
    assert [row["case"] for row in table(folders[2])] == ["image_2", "image_3"]


def test_scans_of_one_name_in_subfolders_get_masks_of_their_own(
    network: IntensityNetwork, folders: tuple[Path, Path, Path]
) -> None:
    queries = folders[1].parent / "bids"
    for subject in ("sub-01", "sub-02"):
        (queries / subject).mkdir(parents=True)
        block = nibabel.MGHImage(block_image(), np.diag([1.0, 1.0, 4.0, 1.0]))
        nibabel.save(block, queries / subject / "T1.mgz")
    evaluator(network, (folders[0], queries, folders[2])).run()
    for subject in ("sub-01", "sub-02"):
        mask = nibabel.load(folders[2] / f"{subject}_T1_seg.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), block_label())


def test_labels_beside_the_queries_are_not_opened(folders: tuple[Path, Path, Path]) -> None:
    (folders[1] / "label_2.nii.gz").write_bytes(b"would break any reader")
    items = query_items(folders[1])
    assert [item["case"].label for item in items] == [None, None]
