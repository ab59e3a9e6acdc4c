from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.protocols import with_labelled_slices
from fsmis_components.evaluation.subjects.universeg import UniverSeg
from fsmis_components.support.support_set import Structure, SupportScan, SupportSet

AFFINE = np.diag([1.0, 1.0, 5.0, 1.0])
SHAPE = (128, 96, 12)  # fills 128 pixels one to one, so that nothing is resampled
GRID = SliceGrid(2, 1.0, 128)
A, B = Structure("a", 1, "#ff0000"), Structure("b", 5, "#00ff00")


class NearMean(nn.Module):
    """Logit 0.1 minus the distance to the mean intensity under the support's masks."""

    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def __init__(self) -> None:
        super().__init__()
        self.margin = nn.Parameter(torch.rand(1))

    def forward(self, target: Tensor, support_images: Tensor, support_labels: Tensor) -> Tensor:
        self.seen.append((target, support_images, support_labels))
        axes = (1, 2, 3, 4)
        weight = support_labels.sum(axes).clamp_min(1)
        mean = (support_images * support_labels).sum(axes) / weight
        return self.margin - (target - mean[:, None, None, None]).abs()


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in for the package `universeg`."""

    def build(pretrained: bool = True) -> nn.Module:
        assert not pretrained, "would be downloaded"
        return NearMean()

    module = ModuleType("universeg")
    module.universeg = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "universeg", module)
    NearMean.seen.clear()
    yield


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"margin": torch.tensor([0.1])}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def scan_label() -> np.ndarray:
    """Structure 1 in slices 2..7, structure 5 in slices 4..9."""
    label = np.zeros(SHAPE, np.uint8)
    label[10:40, 20:50, 2:8] = 1
    label[60:100, 5:90, 4:10] = 5
    return label


def scan_image(label: np.ndarray | None = None) -> np.ndarray:
    """Structure 1 is 400, structure 5 is 800, the rest 0, but for 1000 in the first slice."""
    label = scan_label() if label is None else label
    image = np.choose(np.minimum(label, 2), [0, 400, 800]).astype(np.float32)
    image[:, :, 0] = 1000
    return image


def support_of(*labels: np.ndarray, slices: str = "all") -> SupportSet:
    scans = tuple(
        SupportScan(str(number), Volume(scan_image(label), AFFINE), Volume(label, AFFINE))
        for number, label in enumerate(labels)
    )
    return with_labelled_slices(SupportSet(scans, (A, B)), GRID, slices)  # type: ignore[arg-type]


@pytest.mark.parametrize("slices", ["sections", "all"])
def test_values(weights: Path, slices: str) -> None:
    # label-blind: intensities 0, 0.4 and 0.8 of the scan's 1000, means 0.4 and 0.8, margin 0.1
    query = np.roll(scan_image(), 7, axis=0)
    query[:, :, 11] = 460  # 0.06 from structure 1: nearer than the margin
    predicted = UniverSeg(weights).predict(
        support_of(scan_label(), slices=slices), Volume(query, AFFINE)
    )
    expected = np.roll(scan_label(), 7, axis=0)
    expected[:, :, 11] = 1
    assert predicted.dtype == np.uint8
    assert np.array_equal(predicted, expected)


def test_a_scan_in_another_storage_order_and_a_wide_one(weights: Path) -> None:
    support = support_of(scan_label())
    scan = nibabel.Nifti1Image(scan_image(), AFFINE)
    turn = nibabel.orientations.axcodes2ornt(("S", "P", "L"))
    turned = scan.as_reoriented(turn)
    query = Volume(np.asarray(turned.dataobj), turned.affine)
    predicted = UniverSeg(weights).predict(support, query)
    expected = nibabel.Nifti1Image(scan_label(), AFFINE).as_reoriented(turn)
    assert np.array_equal(predicted, np.asarray(expected.dataobj))
    # 150 pixels along the first axis: 11 are lost on each side, where nothing can be found
    wide = np.full((150, 96, 2), 400, np.float32)
    wide[:, 0] = 0
    wide[:, -1] = 1000
    predicted = UniverSeg(weights).predict(support, Volume(wide, AFFINE))
    assert (predicted[11:139, 1:-1] == 1).all()
    assert not predicted[:11].any() and not predicted[139:].any()


def test_rejects(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="download universeg_v1_nf64_ss64_STA.pt of https"):
        UniverSeg(tmp_path / "none.pt")
    for content in ({"margin": torch.zeros(2)}, {"margin": torch.zeros(1), "more": torch.zeros(1)}):
        torch.save(content, tmp_path / "wrong.pt")
        with pytest.raises(DataError, match="another network .1 entries differ"):
            UniverSeg(tmp_path / "wrong.pt")
    monkeypatch.setitem(sys.modules, "universeg", None)
    with pytest.raises(DataError, match="install it by 'pip install git"):
        UniverSeg(weights)
