from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.registry import make_subject
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet

BUNDLE = Path(__file__).parents[3] / "bundles" / "ssl_alpnet"
GEOMETRY = {"spatial_size": 64, "modality": "mr", "slice_axis": 2, "ignore_spacing": True}


def test_subjects_get_the_geometry() -> None:
    assert isinstance(make_subject("mask_copy", GEOMETRY), MaskCopy)
    bundle = make_subject(f"{BUNDLE}:untrained", GEOMETRY, {"batch_size": 2})
    assert isinstance(bundle, BundleSubject)
    assert (bundle.geometry, bundle.batch_size) == ({**GEOMETRY, "fuse_planes": True}, 2)
    unet = make_subject("supervised_unet", GEOMETRY, {"steps": 3})
    assert isinstance(unet, SupervisedUNet)
    assert (unet.modality, unet.steps, unet.spatial_size) == ("mr", 3, 192)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("nothing", {}, "no such subject; name one of mask_copy"),
        ("mask_copy", {"colour": 1}, "unknown option"),
        ("no_such_module:Method", {}, "it is to be package.module:Class"),
        (f"{BUNDLE}:fit", {"half_step": 5}, "has no knob half_step"),
    ],
)
def test_rejects(spec: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_subject(spec, GEOMETRY, options)
