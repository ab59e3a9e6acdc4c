from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from label_studies import submit, write_volume

from fsmis_components.data.request_error import RequestError
from fsmis_components.label_server import ResolveSupportd
from fsmis_components.support.support_request import SUPPORT_KEY, SupportRequest
from fsmis_components.transforms import LoadVolumed


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
    return meta[SUPPORT_KEY]


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


def test_paths_on_the_server(studies: Path) -> None:
    label = submit(studies, "a", names=None)
    entry = {"image": str(studies / "a.nii.gz"), "label": str(label), "names": {"2": "gut"}}
    request = ask(studies / "d.nii.gz", support=[entry], structures="gut", number_structures=True)
    assert ids(request) == ["a"] and request.volumes[0].names == {2: "gut"}
    assert (request.structures, request.number_structures) == ("gut", True)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"support": ["z"]}, "entry 1 is no labelled volume of this server; labelled are: a."),
        ({"support": "a"}, "expected a list"),
        ({"support": [{"image": "x"}]}, "an object with image, label and names"),
        ({"support": [{"image": "x", "label": "y"}]}, "entry 1 is no labelled volume"),
        ({"support_tag": ".."}, "support_tag: expected the tag of labels"),
        ({"label_tag": "../../x"}, "label_tag: this value is not taken"),
        ({"result_extension": "/../x.nii"}, "result_extension: this value is not taken"),
        ({"model_filename": ["model.pt", "../x"]}, "model_filename: this value is not taken"),
        ({"support_tag": "$x"}, "support_tag: expected the tag of labels"),
        ({"structures": {"a": "x" * 10**5}}, "structures: expected names.{1,400}$"),
        ({"support": [{"image": "a\0", "label": "b"}]}, "support: expected an id or an object"),
        ({"support": [{"image": "x", "label": "y", "names": {"gut": 1}}]}, "names go by label"),
        ({"num_shots": 0.5}, "num_shots: expected a whole number"),
        ({"structures": [["gut"]]}, "structures: expected names or label values"),
        ({"number_structures": "yes"}, "number_structures: expected true or false"),
    ],
)
def test_rejects(studies: Path, params: dict[str, Any], words: str) -> None:
    submit(studies, "a")
    with pytest.raises(RequestError, match=words):
        ask(studies / "d.nii.gz", **params)


def test_a_server_serves_its_own_files_alone(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, whether a foreign file is there or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    submit(studies, "a")
    foreign = write_volume(tmp_path / "foreign", "f", 8)
    own = {"image": str(studies / "a.nii.gz"), "label": str(studies / "labels/final/a.nii.gz")}
    assert ids(ask(studies / "d.nii.gz", studies, support=[own])) == ["a"]
    sentences = set()
    for change in (
        {"label": str(foreign)},
        {"label": str(foreign.with_name("missing.nii.gz"))},
        {"label": str(studies / "labels" / ".." / ".." / "foreign" / "f.nii.gz")},
        {"image": "/etc/passwd"},
        {"image": str(studies / "missing.nii.gz")},
    ):
        with pytest.raises(RequestError) as raised:
            ask(studies / "d.nii.gz", studies, support=[{**own, **change}])
        sentences.add(str(raised.value))
    assert sentences == {"support: entry 1 is no labelled volume of this server; labelled are: a."}


def test_only_scans_of_the_server_are_read(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "uploads"))
    load = LoadVolumed("image", studies_dir=studies)
    store = write_volume(tmp_path / "store", "s", 8)
    (studies / "linked.nii.gz").symlink_to(store)
    upload = write_volume(tmp_path / "uploads", "tmpu", 9)
    others = write_volume(tmp_path / "uploads", "of_another_user", 9)
    for path in (studies / "a.nii.gz", studies / "linked.nii.gz", store, upload):
        assert load({"image": str(path)})["image"].ndim == 4
    foreign = write_volume(tmp_path / "foreign", "f", 7)
    sentences = set()
    missing = foreign.with_name("missing.nii.gz")
    for named in (foreign, others, missing, "/etc/passwd", "a\0b", 7, ""):
        with pytest.raises(RequestError) as raised:
            load({"image": named})
        sentences.add(str(raised.value))
    assert sentences == {"image: no scan of this server; name one by its id."}
