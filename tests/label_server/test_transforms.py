"""The way of a request of a MONAI Label server through transforms and inferer."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_scans import block_image, block_label, write_nifti
from fake_network import IntensityNetwork
from label_studies import submit, write_volume

from fsmis_components.data.request_error import RequestError
from fsmis_components.inferers import VolumeInferer
from fsmis_components.label_server import ReportSupportd, ResolveSupportd
from fsmis_components.support import SupportSource
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
    request = ask(studies / "d.nii.gz", support=["b"], structures="spleen", number_structures=True)
    assert (request.origin, ids(request)) == ("request", ["b"])
    assert (request.structures, request.number_structures) == ("spleen", True)
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


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"support": ["z"]}, "entry 1 is no labelled volume of this server; labelled are: a."),
        ({"support": "a"}, "expected a list"),
        ({"support": [{"image": "x", "label": "y"}]}, "expected a list of ids"),
        ({"support_tag": ".."}, "support_tag: expected the tag of labels"),
        ({"label_tag": "../../x"}, "label_tag: this value is not taken"),
        ({"result_extension": "/../x.nii"}, "result_extension: this value is not taken"),
        ({"model_filename": ["model.pt", "../x"]}, "model_filename: this value is not taken"),
        ({"support_tag": "$x"}, "support_tag: expected the tag of labels"),
        ({"structures": {"a": "x" * 10**5}}, "structures: expected names.{1,400}$"),
        ({"num_shots": 0.5}, "num_shots: expected a whole number"),
        ({"structures": [["gut"]]}, "structures: expected names or label values"),
        ({"number_structures": "yes"}, "number_structures: expected true or false"),
    ],
)
def test_rejects(studies: Path, params: dict[str, Any], words: str) -> None:
    submit(studies, "a")
    with pytest.raises(RequestError, match=words):
        ask(studies / "d.nii.gz", **params)


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


def answer(path: Path, **params: Any) -> tuple[np.ndarray, dict[str, Any]]:
    data: dict[Any, Any] = {"image": str(path), "image_path": str(path), **params}
    for transform in (LoadVolumed("image"), ResolveSupportd("image")):
        data = transform(data)
    inferer = VolumeInferer(SupportSource(spatial_size=24))
    data["pred"] = inferer(data["image"][None], IntensityNetwork())[0]
    data = ReportSupportd("pred")(data)
    assert torch.equal(data["pred"].affine, data["image"].affine)
    return data["pred"][0].numpy(), json.loads(json.dumps(data["result"]))


def test_label_one_and_the_others_follow(studies: Path) -> None:
    submit(studies, "a", block_label({1: 3, 2: 9}), {3: "liver", 9: "spleen"})
    label, result = answer(studies / "b.nii.gz")
    np.testing.assert_array_equal(label, block_label({1: 3, 2: 9}))
    assert result["support"] == {"source": "datastore", "scans": ["a"]}
    assert result["structures"] == {"liver": 3, "spleen": 9}
    assert set(result["expected_dice"]) == {"liver", "spleen"}
    label, result = answer(studies / "b.nii.gz", structures=["spleen"], number_structures=True)
    np.testing.assert_array_equal(label, block_label({2: 1}))
    assert result["structures"] == {"spleen": 1}
    # a scan of one slice is segmented, and says so
    flat = write_nifti(studies / "flat.nii.gz", block_image(seed=4)[..., 5:6])
    label, result = answer(flat)
    assert label.shape == (24, 20, 1)
    assert result["warnings"][0].startswith("The scan has one slice only")


def test_refusals_are_sentences(studies: Path) -> None:
    submit(studies, "a")
    with pytest.raises(RequestError, match="only labelled volume, .* submit its label"):
        answer(studies / "a.nii.gz")
    submit(studies, "a", block_label()[:, 1:])
    with pytest.raises(RequestError, match="shapes differ"):
        answer(studies / "b.nii.gz")
