from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from block_scans import block_label, write_scan

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.registry import custom_subject, make_subject
from fsmis_components.evaluation.subjects.supervised_unet import SupervisedUNet
from fsmis_components.support import SupportSet, load_support_set

BUNDLE = Path(__file__).parents[3] / "bundles" / "ssl_alpnet"
GEOMETRY = {"spatial_size": 64, "modality": "mr", "slice_axis": 2, "ignore_spacing": True}
PLAIN = """
import numpy as np

class Everything:
    def __init__(self, value=1):
        self.value = value

    def predict(self, support, query_image):
        return np.full(query_image.shape, self.value)
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into the current folder and return its name, new for every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    numbers = itertools.count()

    def write(source: str) -> str:
        name = f"method_of_{tmp_path.name}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()  # a file written just now is found
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("method_of_"):
            del sys.modules[name]


@pytest.fixture
def support(tmp_path: Path) -> SupportSet:
    write_scan(tmp_path / "scans", 1, block_label())
    return load_support_set(tmp_path / "scans")


def test_without_predict_told_the_blind_map_is_cut(write: Write, support: SupportSet) -> None:
    subject = custom_subject(f"{write(PLAIN)}:Everything", {"value": 2})
    sections = torch.full((12, 2), -1)
    sections[3:5, 1] = 0
    masks = subject.predict_told(
        support, support.scans[0].image, SliceGrid(2, 1.0, 24), sections, overlap=True
    )
    assert masks.shape == (12, 2, 24, 20)
    assert masks[3:5, 1].all() and masks.sum() == 2 * 24 * 20


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("np.zeros((2, 2, 2), int)", r"returned int64 of shape \(2, 2, 2\)"),
        ("np.zeros(query_image.shape)", r"returned float64 of shape \(24, 20, 12\)"),
    ],
)
def test_rejects_what_is_no_label_map(
    write: Write, support: SupportSet, returned: str, words: str
) -> None:
    source = PLAIN.replace("np.full(query_image.shape, self.value)", returned)
    subject = custom_subject(f"{write(source)}:Everything", {})
    query, grid = support.scans[0].image, SliceGrid(2, 1.0, 24)
    with pytest.raises(DataError, match=words):
        subject.predict_masks(support, query, grid)
    with pytest.raises(DataError, match=words):
        subject.predict_told(support, query, grid, torch.zeros(12, 2), True)


@pytest.mark.parametrize(
    ("source", "spec", "options", "words"),
    [
        (PLAIN, ".{}:Everything", {}, "relative import"),
        ("import gone_package", "{}:Everything", {}, "No module named 'gone_package'"),
        (PLAIN, "{}:Nothing", {}, "no attribute 'Nothing'"),
        ("class Idle: pass", "{}:Idle", {}, "no attribute 'predict'"),
        (PLAIN, "{}:Everything", {"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_rejects_a_class_that_is_no_method(
    write: Write, source: str, spec: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        custom_subject(spec.format(write(source)), options)


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
def test_rejects_what_is_no_subject(spec: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_subject(spec, GEOMETRY, options)
