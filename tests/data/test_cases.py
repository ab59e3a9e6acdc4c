from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsmis_components.data.cases import Case, find_cases, search_cases, select_cases
from fsmis_components.data.errors import DataError


def fill(folder: Path, *names: str) -> Path:
    """Make empty files, DICOM ones where the name holds no dot."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "." in path.name else bytes(128) + b"DICM")
    return folder


def found(folder: Path, **arguments: str) -> list[tuple[str, str, str | None]]:
    root = folder if folder.is_dir() else folder.parent
    return [
        (
            case.name,
            case.image.relative_to(root).as_posix(),
            case.label and case.label.relative_to(root).as_posix(),
        )
        for case in find_cases(folder, **arguments)
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            "image_10.nii.gz image_2.nii image_3.nii.gz label_2.nii.gz label_10.nii.gz notes.txt "
            ".image_1.nii.gz image_2_seg.nii.gz image_2_uncertainty.nii.gz other.nii.gz "
            "overlays/a.png",
            [
                ("2", "image_2.nii", "label_2.nii.gz"),
                ("3", "image_3.nii.gz", None),
                ("10", "image_10.nii.gz", "label_10.nii.gz"),
            ],
            id="prefixes in natural order",
        ),
        pytest.param(
            "scan1.nii.gz scan2.nii label_scan1.nii.gz scan1_seg.nii.gz 3.nrrd 3.seg.nrrd",
            [
                ("3", "3.nrrd", None),
                ("scan1", "scan1.nii.gz", None),
                ("scan2", "scan2.nii", None),
            ],
            id="plain files are images",
        ),
        pytest.param(
            "images/a1.nii.gz images/image_2.nii images/.a3.nii.gz images/b.nrrd labels/a1.nii "
            "labels/label_2.nii.gz labels/b.seg.nrrd",
            [
                ("2", "images/image_2.nii", "labels/label_2.nii.gz"),
                ("a1", "images/a1.nii.gz", "labels/a1.nii"),
                ("b", "images/b.nrrd", "labels/b.seg.nrrd"),
            ],
            id="paired folders",
        ),
        pytest.param(
            "image_2.nii.gz label_1.nii.gz image_3/notes.txt overlays/a.png image_1/0001 "
            "image_4/slice.dcm",
            [
                ("1", "image_1", "label_1.nii.gz"),
                ("2", "image_2.nii.gz", None),
                ("4", "image_4", None),
            ],
            id="DICOM folders",
        ),
    ],
)
def test_layouts(tmp_path, names, expected):
    assert found(fill(tmp_path, *names.split())) == expected


def test_decathlon_folders(tmp_path):
    fill(tmp_path, "imagesTr/h_2.nii.gz", "imagesTr/h_10.nii.gz", "imagesTr/._h_2.nii.gz")
    fill(tmp_path, "labelsTr/h_2.nii.gz", "labelsTr/h_10.nii.gz", "imagesTs/h_5.nii.gz")
    training = [
        ("h_2", "imagesTr/h_2.nii.gz", "labelsTr/h_2.nii.gz"),
        ("h_10", "imagesTr/h_10.nii.gz", "labelsTr/h_10.nii.gz"),
    ]
    test = [("h_5", "imagesTs/h_5.nii.gz", None)]
    for _ in range(2):  # once by folders, once by dataset.json
        assert found(tmp_path, section="training", labels="required") == training
        assert found(tmp_path) == [training[0], test[0], training[1]]
        content = {
            "labels": {"0": "background", "1": "anterior"},
            "training": [
                {"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"}
                for i in (2, 10)
            ],
            "test": ["./imagesTs/h_5.nii.gz"],
        }
        (tmp_path / "dataset.json").write_text(json.dumps(content))


def test_datalist(tmp_path):
    fill(tmp_path, "p1/image.nii.gz", "p1/label.nii.gz", "p2/image.nii.gz", "t.nii.gz", "v.nii")
    content = {
        "training": [
            {"image": "p1/image.nii.gz", "label": "p1/label.nii.gz", "fold": 0},
            {"image": "p2/image.nii.gz"},
        ],
        "validation": [{"image": str(tmp_path / "v.nii")}],
        "testing": [{"image": "t.nii.gz"}],
    }
    datalist = tmp_path / "split.json"
    datalist.write_text(json.dumps(content))
    training = [
        ("p1_image", "p1/image.nii.gz", "p1/label.nii.gz"),
        ("p2_image", "p2/image.nii.gz", None),
    ]
    assert found(datalist, section="training") == training
    assert found(datalist) == [*training, ("t", "t.nii.gz", None), ("v", "v.nii", None)]
    # outputs of files that share their name do not overwrite each other
    assert stems(datalist, section="training") == ["p1_image", "p2_image"]


@pytest.mark.parametrize("layout", ["flat", "folders", "decathlon", "datalist"])
def test_labels_never_are_not_touched(tmp_path, monkeypatch, layout):
    names = {
        "flat": ("image_1.nii.gz", "label_1.nii.gz"),
        "folders": ("images/1.nii.gz", "labels/1.nii.gz"),
        "decathlon": ("imagesTr/1.nii.gz", "labelsTr/1.nii.gz"),
        "datalist": ("a.nii.gz", "label_a.nii.gz"),
    }[layout]
    fill(tmp_path, *names)
    if layout == "datalist":
        entry = {"image": names[0], "label": names[1]}
        (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    touched = []
    for function in ("stat", "open", "iterdir"):
        original = getattr(Path, function)

        def spy(path, *arguments, original=original, **options):
            touched.append(path.relative_to(tmp_path).as_posix() if path != tmp_path else "")
            result = original(path, *arguments, **options)
            # the worst order: labels come before images
            return iter(sorted(result, reverse=True)) if original.__name__ == "iterdir" else result

        monkeypatch.setattr(Path, function, spy)
    assert [case.label for case in find_cases(tmp_path, labels="never")] == [None]
    assert touched
    assert not [path for path in touched if "label" in path]
    assert find_cases(tmp_path, labels="required")[0].label == tmp_path / names[1]
    assert layout == "flat" or [path for path in touched if "label" in path]


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ((), {}, "no image found; expected image_<id>.nii.gz with label_<id>.nii.gz, images/"),
        (("a.txt",), {}, "no image found"),
        (("imagesTs/a.nii",), {"section": "training"}, "no image found; expected"),
        (("image_1.nii.gz",), {"labels": "required"}, "no label for image_1.nii.gz; expected"),
        (("a.nii", "b.nii"), {"labels": "required"}, "no label for a.nii, b.nii; expected"),
        (("images/1.nii",), {"labels": "required"}, "no label for 1.nii; expected"),
        (("image_1.nii.gz", "image_1.nii"), {}, "image_1.nii and image_1.nii.gz would both be"),
        (("imagesTr/a.nii", "imagesTs/a.nii", "imagesTs/a.nii.gz"), {}, "Ts/a.nii.gz would both"),
        (("image_1.nii", "Image_1.nii"), {}, "would both be called 1; remove or rename one"),
        (("image_1.nii", "image_1_0000.nii"), {}, "would both be called 1; remove or rename"),
        (("a_seg.nii", "b.txt"), {}, "(not used: a_seg.nii: named as the label or the result"),
    ],
)
def test_rejects_folders(tmp_path, names, arguments, message):
    fill(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, **arguments)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "list.json: not a readable JSON file"),
        ("[]", "list.json: expected a datalist with a list 'training' or 'test'"),
        ('{"training": [{"image": ["a", "b"]}]}', "list.json: an entry is"),
        ('{"training": [{"image": "gone.nii"}]}', "gone.nii: listed in"),
        ('{"training": []}', "list.json: no image found"),
    ],
)
def test_rejects_datalists(tmp_path, content, message):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path / "list.json")
    assert message in str(caught.value)


def test_select_cases():
    names = ("1", "007", "10", "patient1")
    cases = [Case(name, Path(f"image_{name}.nii.gz")) for name in names]

    def chosen(wanted):
        return [case.name for case in select_cases(cases, wanted)]

    assert chosen([10, "1"]) == ["10", "1"]
    assert chosen([7]) == ["007"]
    assert chosen("patient1, image_10") == ["patient1", "10"]
    assert chosen(1) == ["1"]
    assert chosen(["1", 1]) == ["1"]
    with pytest.raises(DataError, match="id 3: no case of this name; use one of: 1, 007, 10, pat"):
        chosen(["1", 3])
    with pytest.raises(DataError, match="expected at least one name, got none"):
        chosen([])
    with pytest.raises(DataError, match="id 7: several cases of this name"):
        select_cases([*cases, Case("07", Path("07.nii"))], [7])


def stems(folder: Path, **arguments: str) -> list[str]:
    return [case.stem for case in find_cases(folder, **arguments)]


def unused(folder: Path, **arguments: str) -> dict[str, str]:
    found = search_cases(folder, **arguments)
    return {path.relative_to(folder).as_posix(): why for path, why in found.unused}


def test_the_prefix_is_understood_in_capitals(tmp_path: Path) -> None:
    fill(tmp_path, "image_2.nii.gz", "Image_5.nii.gz", "Label_5.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["2", "5"]
    assert select_cases(find_cases(tmp_path), [5])[0].label == tmp_path / "Label_5.nii.gz"


@pytest.mark.parametrize(
    ("names", "expected", "left"),
    [
        (
            "image_2.nii scan_9.nii",
            {"image_2"},
            {"scan_9.nii": "not called image_<id>, as the scans beside it are"},
        ),
        (  # subfolders are searched and names stay unique; a stray slice makes no case
            "s1/anat/T1w.nii s1/anat/T1w.json derivatives/s1/anat/T1w.nii s2/anat/T1w.nii "
            "s2/anat/T2w.nii s2/anat/T2w_mask.nii README",
            {"T2w", "s1_anat_T1w", "s2_anat_T1w"},
            {
                "README": "a DICOM slice beside scans",
                "derivatives": "named as labels; a folder of scans",
                "s1/anat/T1w.json": "no format of scans",
            },
        ),
        (  # series at any depth, without an ending
            "export/P1/ST1/SE1/IM1 export/P1/ST1/SE2/IM1 export/P2/ST1/SE1/IM1 image_3.nii",
            {"SE2", "export_P1_ST1_SE1", "export_P2_ST1_SE1", "image_3"},
            {},
        ),
        (  # a folder beside scans may well hold labels under any name
            "a.nii drawn/a.nii masks/a.nii empty/notes.txt",
            {"a"},
            {
                "drawn/a.nii": "in a folder beside scans; name that folder to use it",
                "empty": "a folder without scans",
                "masks": "named as labels; a folder of scans needs another name",
            },
        ),
        (  # a label in the folder of its scan is not segmented
            "p1/ct.nii p1/label.nii p1/segmentations/liver.nii p2/ct.nii p2/ct_seg.nii",
            {"p1_ct", "p2_ct"},
            {"p1/segmentations": "named as labels"},
        ),
        (  # our own output is no news
            "image_1.nii image_1_seg.nii image_1_uncertainty.nii cases.csv run.json report.html "
            "overlays/a.png label_1.nii may/run.json may/image_1_seg.nii",
            {"image_1"},
            {"may": "the output folder of a run"},
        ),
        (  # but a label whose scan is missing is
            "image_1.nii label_1.nii label_2.nii",
            {"image_1"},
            {"label_2.nii": "named as the label or the result of a scan that is not here"},
        ),
        (
            "a.nrrd b.mha c.mhd c.raw d.mgz e.nhdr e.raw.gz f.hdr",
            {"a", "b", "c", "d", "e"},
            {"f.hdr": "no format of scans that is read"},
        ),
    ],
)
def test_what_is_found_and_what_is_left(tmp_path, names, expected, left):
    fill(tmp_path, *names.split())
    assert set(stems(tmp_path, labels="never")) == expected
    found = unused(tmp_path)
    assert found.keys() == left.keys()
    assert all(found[path].startswith(why) for path, why in left.items())


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


def test_a_link_that_leads_back_ends(tmp_path: Path) -> None:
    fill(tmp_path, "p1/a.nii.gz")
    (tmp_path / "p1" / "again").symlink_to(tmp_path)
    assert stems(tmp_path) == ["a"]


def test_unlabelled_scans_in_subfolders_are_not_demanded(tmp_path: Path) -> None:
    fill(tmp_path, "image_1.nii", "label_1.nii", "raw/old/IM1")
    assert stems(tmp_path, labels="required") == ["image_1"]
    assert unused(tmp_path, labels="required") == {"raw/old": "a scan without a label"}
    fill(tmp_path, "image_2.nii")
    with pytest.raises(DataError, match="no label for image_2"):
        find_cases(tmp_path, labels="required")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scans.txt", "\ufeffa/scan_2.nii.gz\n\n  b/, 1.nii \n{}/c.nii\n"),
        ("scans.csv", 'image,site\na/scan_2.nii.gz,1\n"b/, 1.nii",2\n{}/c.nii,3\n'),
    ],
)
def test_a_list_of_paths(tmp_path, name, text):
    listed = tmp_path / name
    listed.write_text(text.format(tmp_path / "d"), encoding="utf-8")
    # relative to the list; whether they are there is found when they are read
    paths = [tmp_path / path for path in ("b/, 1.nii", "d/c.nii", "a/scan_2.nii.gz")]
    assert {case.image for case in find_cases(listed)} == set(paths)
    with pytest.raises(DataError, match="no label for"):
        find_cases(listed, labels="required")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"s3://scans/a.nii.gz\n", "lists s3://scans/a.nii.gz, an address; .* mount the storage"),
        (b"\n", "no image found"),
        (b"\xff\xfe", "not a readable list of paths"),
        (b"a/1.nii\na/1.nii\n", "would both be called"),
    ],
)
def test_rejects_lists_of_paths(tmp_path, content, message):
    (tmp_path / "scans.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path / "scans.txt")
