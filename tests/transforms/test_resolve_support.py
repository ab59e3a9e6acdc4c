from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from label_studies import submit, write_volume

from fsmis_components.data.request_error import RequestError
from fsmis_components.support.support_request import SUPPORT_KEY, SupportRequest
from fsmis_components.transforms import LoadVolumed, ResolveSupportd


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for seed, id in enumerate("abcd"):
        write_volume(tmp_path / "studies", id, seed)
    (tmp_path / "studies" / "labels" / "final").mkdir(parents=True)
    return tmp_path / "studies"


def ask(image: Path, studies_dir: Path | None = None, **params: Any) -> SupportRequest:
    path = str(image)
    data = LoadVolumed("image")({"image": path, "image_path": path, **params})
    before = copy.deepcopy(params)
    meta = ResolveSupportd("image", studies_dir)(data)["image"].meta
    assert params == before
    return SupportRequest.from_dict(meta[SUPPORT_KEY])


def ids(request: SupportRequest) -> list[str]:
    return [volume.id for volume in request.volumes]


def test_order_request_then_datastore_then_bundle(studies: Path) -> None:
    request = ask(studies / "d.nii.gz")
    assert (request.origin, ids(request), request.notes) == ("bundle", [], ())
    submit(studies, "a", ts=1)
    submit(studies, "b", ts=2)
    request = ask(studies / "d.nii.gz")
    assert (request.origin, ids(request)) == ("datastore", ["a", "b"])
    request = ask(studies / "d.nii.gz", support=["b"])
    assert (request.origin, ids(request)) == ("request", ["b"])
    assert request.volumes[0].names == {1: "Liver", 2: "Spleen"}


def test_a_volume_does_not_support_itself(studies: Path) -> None:
    submit(studies, "a", ts=1)
    request = ask(studies / "a.nii.gz")
    assert request.origin == "bundle" and "only labelled volume" in request.notes[0]
    submit(studies, "b", ts=2)
    assert ids(ask(studies / "a.nii.gz")) == ["b"]
    # unless the person who asks says so, to fill the slices between labelled ones
    assert ids(ask(studies / "a.nii.gz", support=["a"])) == ["a"]


def test_volumes_in_the_order_of_labelling(studies: Path) -> None:
    for when, id in ((3, "a"), (1, "b"), (2, "c")):
        submit(studies, id, ts=when)
    request = ask(studies / "d.nii.gz")
    assert (ids(request), request.num_shots) == (["b", "c", "a"], 5)
    assert ask(studies / "d.nii.gz", num_shots=2).num_shots == 2
    # who names volumes gets them all
    assert ask(studies / "d.nii.gz", support=["a", "b"]).num_shots is None
    assert ask(studies / "d.nii.gz", support=["a", "b"], num_shots=1).num_shots == 1


def test_an_uploaded_scan_finds_the_servers_volumes(tmp_path: Path, studies: Path) -> None:
    upload = write_volume(tmp_path / "tmp", "upload", 9)
    submit(studies, "a")
    assert ask(upload).origin == "bundle"
    assert ids(ask(upload, studies)) == ["a"]


def test_paths_on_the_server(studies: Path) -> None:
    label = submit(studies, "a", names=None)
    entry = {"image": str(studies / "a.nii.gz"), "label": str(label), "names": {"2": "gut"}}
    request = ask(studies / "d.nii.gz", support=[entry], structures="gut", number_structures=True)
    assert ids(request) == ["a"] and request.volumes[0].names == {2: "gut"}
    assert (request.structures, request.number_structures) == ("gut", True)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"support": ["z"]}, "z is no labelled volume; those that are labelled: a."),
        ({"support": "a"}, "expected a list"),
        ({"support": [{"image": "x"}]}, "an object with image, label and names"),
        ({"support": [{"image": "x", "label": "y"}]}, "no such file"),
        ({"support": [{"image": "x", "label": "y", "names": {"gut": 1}}]}, "names go by label"),
        ({"num_shots": 0.5}, "num_shots: expected a whole number"),
        ({"num_shots": 0}, "num_shots: expected a whole number"),
        ({"structures": [["gut"]]}, "structures: expected names or label values"),
        ({"structures": {"gut": 1}}, "structures: expected names or label values"),
        ({"support_tag": "../../other"}, "support_tag: expected the tag"),
        ({"number_structures": "yes"}, "number_structures: expected true or false"),
    ],
)
def test_rejects(studies: Path, params: dict[str, Any], words: str) -> None:
    submit(studies, "a")
    with pytest.raises(RequestError, match=words):
        ask(studies / "d.nii.gz", **params)
