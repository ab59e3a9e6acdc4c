"""The way of a request of a MONAI Label server through transforms and inferer."""

from __future__ import annotations

import json
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
from fsmis_components.transforms import LoadVolumed


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for seed, id in enumerate("abc"):
        write_volume(tmp_path, id, seed)
    submit(tmp_path, "a", block_label({1: 3, 2: 9}), {3: "liver", 9: "spleen"})
    return tmp_path


@pytest.fixture
def inferer() -> VolumeInferer:
    return VolumeInferer(SupportSource(spatial_size=24))


def run(inferer: VolumeInferer, path: Path, **params: Any) -> tuple[np.ndarray, dict[str, Any]]:
    data: dict[Any, Any] = {"image": str(path), "image_path": str(path), **params}
    for transform in (LoadVolumed("image"), ResolveSupportd("image")):
        data = transform(data)
    data["pred"] = inferer(data["image"][None], IntensityNetwork())[0]
    data = ReportSupportd("pred")(data)
    assert torch.equal(data["pred"].affine, data["image"].affine)
    return data["pred"][0].numpy(), json.loads(json.dumps(data["result"]))


def test_label_one_and_the_others_follow(studies: Path, inferer: VolumeInferer) -> None:
    label, result = run(inferer, studies / "b.nii.gz")
    np.testing.assert_array_equal(label, block_label({1: 3, 2: 9}))
    assert result["support"] == {"source": "datastore", "scans": ["a"]}
    assert result["structures"] == {"liver": 3, "spleen": 9}
    assert set(result["expected_dice"]) == {"liver", "spleen"}
    label, result = run(
        inferer, studies / "b.nii.gz", structures=["spleen"], number_structures=True
    )
    np.testing.assert_array_equal(label, block_label({2: 1}))
    assert result["structures"] == {"spleen": 1}


def test_refusals_are_sentences(studies: Path, inferer: VolumeInferer) -> None:
    with pytest.raises(RequestError, match="only labelled volume, .* submit its label"):
        run(inferer, studies / "a.nii.gz")
    submit(studies, "a", block_label()[:, 1:])
    with pytest.raises(RequestError, match="shapes differ"):
        run(inferer, studies / "b.nii.gz")


def test_a_scan_of_one_slice(studies: Path, inferer: VolumeInferer) -> None:
    flat = write_nifti(studies / "flat.nii.gz", block_image(seed=4)[..., 5:6])
    label, result = run(inferer, flat)
    assert label.shape == (24, 20, 1)
    assert result["warnings"][0].startswith("The scan has one slice only")
