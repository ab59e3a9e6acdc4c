"""Registration by ANTs: labels arrive at the right place on the scan's own grid."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from fsmis_components.data.errors import DataError
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.registry import make_subject
from fsmis_components.support.support_set import Structure, SupportScan, SupportSet

# axes to the left, behind and above; and to the front, the left and below
SUPPORT = np.array([[-2.0, 0, 0, 44], [0, -2, 0, 40], [0, 0, 3, -30], [0, 0, 0, 1]])
QUERY = np.array([[0.0, -2, 0, 40], [2, 0, 0, -44], [0, 0, -3, 33], [0, 0, 0, 1]])


def body(affine: np.ndarray, larger: float) -> tuple[Volume, Volume]:
    """A body with two organs, right and left, of another size and brightness."""
    places = np.stack(np.meshgrid(*map(np.arange, (44, 40, 22)), indexing="ij"), -1)
    x, y, z = np.moveaxis(places @ affine[:3, :3].T + affine[:3, 3], -1, 0) / larger

    def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2

    organs = ball((18, 0, 0), 11) * 1 + ball((-14, 8, 4), 8) * 5
    image = 40 * ball((0, 0, 0), 36) + 60 * (organs == 1) + 140 * (organs == 5)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return Volume(gaussian_filter(image + noise, 0.7), affine), Volume(organs, affine)


def support_set(*larger: float) -> SupportSet:
    scans = (SupportScan(str(each), *body(SUPPORT, each)) for each in larger)
    return SupportSet(tuple(scans), (Structure("a", 5, "#ff0000"), Structure("b", 1, "#00ff00")))


class Placed(NamedTuple):
    """An image of the stand-in for ANTs: voxels and where they lie, in ITK's world."""

    voxels: np.ndarray
    affine: np.ndarray

    def numpy(self) -> np.ndarray:
        return self.voxels


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans lie upon each other already: what is left is where voxels lie in the world."""

    def placed(
        data: np.ndarray, origin: list[float], spacing: list[float], direction: np.ndarray
    ) -> Placed:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = direction * spacing, origin
        return Placed(data, affine)

    def apply(fixed: Placed, moving: Placed, transforms: list[str], how: str) -> Placed:
        assert (transforms, how) == (["none"], "linear")
        matrix = np.linalg.inv(moving.affine) @ fixed.affine
        bent = affine_transform(
            moving.voxels, matrix[:3, :3], matrix[:3, 3], fixed.voxels.shape, order=1
        )
        return Placed(bent, fixed.affine)

    module: Any = ModuleType("ants")
    module.__version__, module.from_numpy, module.apply_transforms = "0", placed, apply
    module.registration = lambda *images, **options: {"fwdtransforms": ["none"]}
    module.config = SimpleNamespace(set_ants_deterministic=lambda on, seed_value: None)
    monkeypatch.setitem(sys.modules, "ants", module)


def test_voxels_are_found_in_the_world(stand_in: None) -> None:
    image, label = body(QUERY, 1.0)
    subject = make_subject("ants_syn", {"spatial_size": 256})
    for larger in ((1.0,), (1.2, 1.0, 1.0)):  # of three scans two agree
        assert np.array_equal(subject.predict(support_set(*larger), image), label.data)


def test_labels_follow_across_orientations() -> None:
    pytest.importorskip("ants", reason="ANTs is not installed: pip install '.[registration]'")
    subject = make_subject("ants_syn", {"spatial_size": 256})
    image, label = body(QUERY, 1.15)
    alone = subject.predict(support_set(1.0), image)
    assert np.array_equal(subject.predict(support_set(1.0), image), alone), "the same twice"
    for answer in (alone, subject.predict(support_set(0.9, 1.0), image)):
        check(answer, label)


def check(answer: np.ndarray, label: Volume) -> None:
    for value in (1, 5):
        found, true = answer == value, label.data == value
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9
    assert set(np.unique(answer)) == {0, 1, 5}


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(DataError, match="antspyx is missing; pip install"):
        make_subject("ants_syn", {})
