import json
from pathlib import Path

import pytest

from fsmis_components.data.cases import Case, find_cases, select_cases
from fsmis_components.data.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def dicom_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM")


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


def test_prefix_layout_in_natural_order(tmp_path):
    touch(tmp_path, "image_10.nii.gz", "image_2.nii", "image_3.nii.gz")
    touch(tmp_path, "label_2.nii.gz", "label_10.nii.gz", ".image_1.nii.gz", "image_2_seg.nii.gz")
    touch(tmp_path, "image_2_uncertainty.nii.gz", "other.nii.gz", "notes.txt", "overlays/a.png")
    assert found(tmp_path) == [
        ("2", "image_2.nii", "label_2.nii.gz"),
        ("3", "image_3.nii.gz", None),
        ("10", "image_10.nii.gz", "label_10.nii.gz"),
    ]


def test_plain_files_are_images(tmp_path):
    touch(tmp_path, "scan1.nii.gz", "scan2.nii", "label_scan1.nii.gz", "scan1_seg.nii.gz")
    assert found(tmp_path) == [("scan1", "scan1.nii.gz", None), ("scan2", "scan2.nii", None)]
    with pytest.raises(DataError, match=r"no label for scan1\.nii\.gz, scan2\.nii; expected"):
        find_cases(tmp_path, labels="required")


def test_paired_folders(tmp_path):
    touch(tmp_path, "images/a1.nii.gz", "images/image_2.nii", "images/.a3.nii.gz")
    touch(tmp_path, "labels/a1.nii", "labels/label_2.nii.gz")
    assert found(tmp_path, labels="required") == [
        ("2", "images/image_2.nii", "labels/label_2.nii.gz"),
        ("a1", "images/a1.nii.gz", "labels/a1.nii"),
    ]


def test_decathlon_folders(tmp_path):
    touch(tmp_path, "imagesTr/h_2.nii.gz", "imagesTr/h_10.nii.gz", "imagesTr/._h_2.nii.gz")
    touch(tmp_path, "labelsTr/h_2.nii.gz", "labelsTr/h_10.nii.gz", "imagesTs/h_5.nii.gz")
    training = [
        ("h_2", "imagesTr/h_2.nii.gz", "labelsTr/h_2.nii.gz"),
        ("h_10", "imagesTr/h_10.nii.gz", "labelsTr/h_10.nii.gz"),
    ]
    test = [("h_5", "imagesTs/h_5.nii.gz", None)]
    for _ in range(2):  # once by folders, once by dataset.json
        assert found(tmp_path, section="training", labels="required") == training
        assert found(tmp_path, section="test") == test
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
    touch(tmp_path, "p1/image.nii.gz", "p1/label.nii.gz", "p2/image.nii.gz", "t.nii.gz", "v.nii")
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
    assert found(datalist, section="test") == [("t", "t.nii.gz", None)]
    assert found(datalist) == [*training, ("t", "t.nii.gz", None), ("v", "v.nii", None)]
    # outputs of files that share their name do not overwrite each other
    assert [case.stem for case in find_cases(datalist, section="training")] == [
        "p1_image",
        "p2_image",
    ]


def test_dicom_folders(tmp_path):
    touch(tmp_path, "image_2.nii.gz", "label_1.nii.gz", "image_3/notes.txt", "overlays/a.png")
    dicom_file(tmp_path / "image_1" / "0001")
    touch(tmp_path, "image_4/slice.dcm")
    assert found(tmp_path) == [
        ("1", "image_1", "label_1.nii.gz"),
        ("2", "image_2.nii.gz", None),
        ("4", "image_4", None),
    ]
    assert [case.name for case in find_cases(tmp_path / "image_1")] == ["1"]


@pytest.mark.parametrize("layout", ["flat", "folders", "decathlon", "datalist"])
def test_labels_never_are_not_touched(tmp_path, monkeypatch, layout):
    names = {
        "flat": ("image_1.nii.gz", "label_1.nii.gz"),
        "folders": ("images/1.nii.gz", "labels/1.nii.gz"),
        "decathlon": ("imagesTr/1.nii.gz", "labelsTr/1.nii.gz"),
        "datalist": ("a.nii.gz", "label_a.nii.gz"),
    }[layout]
    touch(tmp_path, *names)
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
        (("imagesTr/a.nii.gz",), {"section": "test"}, "no image found for section test"),
        (("image_1.nii.gz",), {"labels": "required"}, "no label for image_1.nii.gz; expected"),
        (("images/1.nii",), {"labels": "required"}, "no label for 1.nii; expected"),
        (("image_1.nii.gz", "image_1.nii"), {}, "image_1.nii and image_1.nii.gz would both be"),
        (("imagesTr/a.nii", "imagesTs/a.nii", "imagesTs/a.nii.gz"), {}, "Ts/a.nii.gz would both"),
        (("image_1.nii", "Image_1.nii"), {}, "would both be called 1; remove or rename one"),
        (("image_1.nii", "image_1_0000.nii"), {}, "would both be called 1; remove or rename"),
        (("a_seg.nii", "b.txt"), {}, "(not used: a_seg.nii: named as the label or the result"),
    ],
)
def test_rejects_folders(tmp_path, names, arguments, message):
    touch(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, **arguments)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert message in str(caught.value)


def test_rejects_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: there is no such file or folder; check"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a\.txt: expected a folder or a datalist \.json"):
        find_cases(touch(tmp_path, "a.txt") / "a.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "list.json: not a readable JSON file"),
        ("[]", "list.json: expected a datalist with a list 'training' or 'test'"),
        ('{"training": [{"image": ["a", "b"]}]}', "list.json: an entry of 'training' is"),
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
