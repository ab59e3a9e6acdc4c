"""What is found in folders of strangers, and what is told of the rest."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fsmis_components.data.cases import find_cases, search_cases, select_cases
from fsmis_components.data.errors import DataError


def fill(folder: Path, *names: str) -> Path:
    """Make empty files, DICOM ones where the name ends in .dcm or holds no dot."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "." in path.name else bytes(128) + b"DICM")
    return folder


def names(folder: Path, **arguments: str) -> list[str]:
    return [case.stem for case in find_cases(folder, **arguments)]


def unused(folder: Path, **arguments: str) -> dict[str, str]:
    found = search_cases(folder, **arguments)
    return {path.relative_to(folder).as_posix(): why for path, why in found.unused}


def test_a_stray_slice_does_not_make_one_case_of_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "a.nii.gz", "b.nii.gz", "stray.dcm")
    assert names(tmp_path) == ["a", "b"]
    assert list(unused(tmp_path)) == ["stray.dcm"]
    assert "DICOM slice beside scans" in unused(tmp_path)["stray.dcm"]


def test_the_prefix_is_understood_in_capitals_and_the_rest_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "image_2.nii.gz", "Image_5.nii.gz", "scan_9.nii.gz", "Label_5.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["2", "5"]
    assert select_cases(find_cases(tmp_path), [5])[0].label == tmp_path / "Label_5.nii.gz"
    assert unused(tmp_path) == {
        "scan_9.nii.gz": "not called image_<id>, as the scans beside it are"
    }


def test_subfolders_are_searched_and_names_stay_unique(tmp_path: Path) -> None:
    for subject in ("sub-01", "sub-02"):
        fill(tmp_path, f"{subject}/anat/T1w.nii.gz", f"{subject}/anat/T1w.json")
        fill(tmp_path, f"derivatives/{subject}/anat/T1w.nii.gz")
    fill(tmp_path, "sub-02/anat/T2w.nii.gz", "sub-02/anat/T2w_mask.nii.gz", "README")
    assert names(tmp_path) == ["T2w", "sub-01_anat_T1w", "sub-02_anat_T1w"]
    left = unused(tmp_path)
    assert sorted(left) == ["README", "derivatives", "sub-01/anat/T1w.json", "sub-02/anat/T1w.json"]
    assert "a DICOM slice beside scans" in left["README"]
    assert "named as labels" in left["derivatives"]


def test_series_are_found_at_any_depth_without_an_ending(tmp_path: Path) -> None:
    fill(tmp_path, "export/P1/ST1/SE1/IM1", "export/P1/ST1/SE2/IM1", "export/P2/ST1/SE1/IM1")
    fill(tmp_path, "image_3.nii.gz", "label_SE2.nii.gz")
    assert sorted(names(tmp_path)) == [
        "SE2",
        "export_P1_ST1_SE1",
        "export_P2_ST1_SE1",
        "image_3",
    ]


def test_scans_below_scans_are_told_not_taken(tmp_path: Path) -> None:
    """A folder beside scans may well hold labels under any name."""
    fill(tmp_path, "a.nii.gz", "drawn/a.nii.gz", "masks/a.nii.gz", "empty/notes.txt")
    assert names(tmp_path) == ["a"]
    assert unused(tmp_path) == {
        "drawn/a.nii.gz": "in a folder beside scans; name that folder to use it",
        "empty": "a folder without scans",
        "masks": "named as labels; a folder of scans needs another name",
    }


def test_a_label_in_the_folder_of_its_scan_is_not_segmented(tmp_path: Path) -> None:
    fill(tmp_path, "p1/ct.nii.gz", "p1/label.nii.gz", "p1/segmentations/liver.nii.gz")
    fill(tmp_path, "p2/ct.nii.gz", "p2/ct_seg.nii.gz", "p2/mask_of_other.nii.gz")
    assert names(tmp_path, labels="never") == ["p1_ct", "p2_ct"]
    assert list(unused(tmp_path)) == ["p1/segmentations", "p2/mask_of_other.nii.gz"]


def test_our_own_output_is_no_news(tmp_path: Path) -> None:
    fill(tmp_path, "image_1.nii", "image_1_seg.nii.gz", "image_1_uncertainty.nii.gz", "cases.csv")
    fill(tmp_path, "run.json", "report.html", "overlays/image_1.png", "label_1.nii")
    fill(tmp_path, "masks_of_may/run.json", "may/run.json", "may/image_1_seg.nii.gz")
    assert names(tmp_path) == ["image_1"]
    assert unused(tmp_path)["may"] == "the output folder of a run"
    assert "image_1_seg.nii.gz" not in unused(tmp_path)


def test_other_formats(tmp_path: Path) -> None:
    fill(tmp_path, "a.nrrd", "b.mha", "c.mhd", "c.raw", "d.mgz", "e.nhdr", "e.raw.gz", "f.hdr")
    fill(tmp_path, "a.seg.nrrd", "x.raw")
    assert names(tmp_path) == ["a", "b", "c", "d", "e"]
    assert list(unused(tmp_path)) == ["f.hdr", "x.raw"]
    fill(tmp_path, "images/1.nrrd", "labels/1.seg.nrrd")
    assert find_cases(tmp_path)[0].label == tmp_path / "labels" / "1.seg.nrrd"


def test_names_of_nnunet(tmp_path: Path) -> None:
    fill(tmp_path / "flat", "image_7_0000.nii.gz", "image_7_0001.nii.gz", "label_7.nii.gz")
    case = find_cases(tmp_path / "flat", labels="required")[0]
    assert (case.name, case.stem) == ("7", "image_7_0000")
    assert unused(tmp_path / "flat") == {
        "image_7_0001.nii.gz": "a further channel of a scan; one channel is used, _0000"
    }
    fill(tmp_path / "raw", "imagesTr/heart_0000.nii.gz", "labelsTr/heart.nii.gz")
    case = find_cases(tmp_path / "raw", labels="required")[0]
    assert (case.name, case.label) == ("heart", tmp_path / "raw" / "labelsTr" / "heart.nii.gz")


@pytest.mark.parametrize("pattern", ["scan_{:04}.nii", "image_{:04}.nii", "p2024_{:04}.nii"])
def test_numbers_of_scans_are_no_channels(tmp_path: Path, pattern: str) -> None:
    fill(tmp_path, *(pattern.format(number) for number in range(12)))
    assert len(find_cases(tmp_path)) == 12


def test_long_names_become_short_enough_for_the_results(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{'é' * 118}{end}.nii.gz" for end in "ab"), "c.nii.gz")
    cases = find_cases(tmp_path)
    assert len({case.stem for case in cases}) == 3
    for case in cases:
        fill(tmp_path, f".123456789012.{case.stem}_uncertainty.nii.gz")


def test_what_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made up."""
    fill(tmp_path, "a.nii.gz", "closed/IM1", "closed_file")
    real = {name: getattr(Path, name) for name in ("open", "iterdir")}

    def denied(name: str):
        def refuse(path: Path, *arguments: object, **options: object) -> object:
            if path.name.startswith("closed"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real[name](path, *arguments, **options)

        return refuse

    for name in real:
        monkeypatch.setattr(Path, name, denied(name))
    reason = "cannot be read (Permission denied)"
    assert unused(tmp_path) == {"closed_file": reason, "closed": reason}
    with pytest.raises(DataError, match=r"closed: cannot be read \(Permission denied\); get the"):
        find_cases(tmp_path / "closed")


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    fill(tmp_path, "p1/a.nii.gz")
    (tmp_path / "p1" / "again").symlink_to(tmp_path)
    assert names(tmp_path) == ["a"]


def test_unlabelled_scans_in_subfolders_are_not_demanded(tmp_path: Path) -> None:
    fill(tmp_path, "image_1.nii", "label_1.nii", "raw/old/IM1")
    assert names(tmp_path, labels="required") == ["image_1"]
    assert unused(tmp_path, labels="required") == {"raw/old": "a scan without a label"}
    fill(tmp_path, "image_2.nii")
    with pytest.raises(DataError, match="no label for image_2"):
        find_cases(tmp_path, labels="required")
