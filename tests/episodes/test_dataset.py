"""Episodes as tensors, of pseudo-labels and between patients: repeatable, of real geometry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fsmis_components.data.cases import Case, find_cases
from fsmis_components.data.training_cases import training_split
from fsmis_components.episodes import (
    CorpusSettings,
    EpisodeDataset,
    EpisodeRule,
    EpisodeTransform,
    MixedEpisodes,
    PatientEpisodeDataset,
    PatientRule,
    PatientTransform,
)
from fsmis_components.transforms import PseudoLabels, WarpRanges

SMALL = CorpusSettings(spatial_size=64)
Make = Callable[..., EpisodeDataset]


@pytest.fixture(scope="module")
def cases(phantom_dataset: Path) -> list[Case]:
    return find_cases(phantom_dataset, labels="required")[:2]


@pytest.fixture(scope="module")
def of_regions(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Make:
    pseudo_labels = PseudoLabels(min_size=300, cache_dir=tmp_path_factory.mktemp("cache"))

    def make(data: list[Case] = cases, **changes: object) -> EpisodeDataset:
        arguments: dict[str, object] = {
            "rule": EpisodeRule(num_ways=3, min_area=20),
            "transform": EpisodeTransform(),
            "settings": SMALL,
            "seed": 5,
        }
        return EpisodeDataset(data, pseudo_labels, **(arguments | changes))

    return make


@pytest.fixture(scope="module")
def of_patients(cases: list[Case]) -> Callable[..., PatientEpisodeDataset]:
    def make(data: list[Case] = cases, **changes: object) -> PatientEpisodeDataset:
        arguments: dict[str, object] = {
            "rule": PatientRule(num_ways=3, sections=(1, 3)),
            "transform": PatientTransform(),
            "settings": SMALL,
            "seed": 5,
            "batch_size": 2,
        }
        return PatientEpisodeDataset(data, **(arguments | changes))

    return make


@pytest.mark.parametrize("kind", ["of_regions", "of_patients"])
def test_items_depend_on_seed_and_number_alone(kind: str, request: pytest.FixtureRequest) -> None:
    make = request.getfixturevalue(kind)
    first, second, other = make(), make(), make(seed=6)
    second[3]  # reading another item first changes nothing
    for name, tensor in first[7].items():
        assert torch.equal(tensor, second[7][name])
    assert not torch.equal(first[7]["image"], other[7]["image"])
    assert not torch.equal(first[7]["image"], first[8]["image"])


def test_each_transform_of_one_slice_draws_the_slice_anew(of_regions: Make) -> None:
    """Over episodes, warp and gamma meet on one slice and strike different ones about as often."""
    plain, both = of_regions(transform=None), of_regions()
    each = of_regions(transform=EpisodeTransform(which="each"))
    ways = set()
    for index in range(16):
        before, after = plain[index], each[index]
        warped = not torch.equal(before["label"], after["label"])
        assert warped != (not torch.equal(before["support_label"], after["support_label"]))
        touched = [not torch.equal(before[k], after[k]) for k in ("image", "support_image")]
        ways.add((warped, all(touched)))
        assert not torch.equal(both[index]["image"], before["image"])
        assert not torch.equal(both[index]["support_image"], before["support_image"])
    assert ways == {(True, True), (True, False), (False, True), (False, False)}


def test_lost_regions_are_redrawn_and_counted(of_regions: Make) -> None:
    data = of_regions(transform=EpisodeTransform(warp=WarpRanges(translation=60)))
    items = [data[i] for i in range(4)]
    assert sum(int(item["redraws"]) for item in items) > 0
    assert all(bool(item["label"].any(-1).any(-1).all()) for item in items)
    gone = EpisodeTransform(warp=WarpRanges(zoom=(0.001, 0.002), elastic_alpha=0))
    with pytest.raises(RuntimeError, match="weaker transforms"):
        of_regions(transform=gone)[0]


def test_labels_that_are_needed_and_missing_are_named(
    cases: list[Case], of_regions: Make, of_patients: Make
) -> None:
    unlabelled = [Case(case.name, case.image) for case in cases]
    with pytest.raises(SystemExit, match="use --setting 1"):
        of_regions(unlabelled, settings=CorpusSettings(64, exclude_labels=(1,)))
    with pytest.raises(SystemExit, match="need a label for each scan"):
        of_patients(unlabelled)


def test_masks_lie_on_their_structures(of_patients: Make) -> None:
    plain = of_patients(transform=None)
    episode, item = plain.drawer.draw(0), plain[0]
    volume = plain.corpus[episode.query]
    expected = volume.labels.native(episode.query_slice, episode.query_slice + 1)[0]
    for way, structure in enumerate(episode.ways):
        share = float((expected == structure).mean())
        padded = np.prod(volume.labels.working_size) / 64**2
        assert float(item["label"][way].mean()) == pytest.approx(share * padded, abs=0.02)


def test_near_isotropic_scans_are_cut_in_three_planes(tmp_path: Path, of_patients: Make) -> None:
    label = np.zeros((24, 20, 22), np.uint8)
    label[6:18, 5:15, 6:16] = 4
    for number in (1, 2):
        image = label * 50.0 + np.random.default_rng(number).normal(100, 5, label.shape)
        for kind, data in (("image", image.astype(np.float32)), ("label", label)):
            file = nibabel.Nifti1Image(data, np.diag([1, 1, 1.2, 1]))
            nibabel.save(file, tmp_path / f"{kind}_{number}.nii.gz")
    cases = find_cases(tmp_path, labels="required")
    assert {volume.table.domain[1] for volume in of_patients(cases).corpus} == {0, 1, 2}
    axial = CorpusSettings(spatial_size=64, slice_axis="axial")
    assert {v.table.domain[1] for v in of_patients(cases, settings=axial).corpus} == {2}


def test_batches_are_of_one_kind(of_regions: Make, of_patients: Make) -> None:
    supervised = of_patients(rule=PatientRule(num_ways=2), transform=None)
    mixed = MixedEpisodes(of_regions(transform=None, length=60), supervised, 0.5, 2, seed=1)
    kinds = [mixed[index]["label"].shape[0] for index in range(60)]
    assert kinds[::2] == kinds[1::2] and {2, 3} == set(kinds)
    assert len(mixed) == 60


def test_cases_that_are_left_out_are_in_no_training(phantom_dataset: Path) -> None:
    split = training_split(phantom_dataset, left_out={phantom_dataset.name: ["2"]})
    assert [c.name for c in split.held_out] == ["2"]
    assert [c.name for c in split.train] == ["1", "3", "4"]
    with pytest.raises(SystemExit, match="no such case lies there"):
        training_split(phantom_dataset, left_out={phantom_dataset.name: ["9"]})
    with pytest.raises(SystemExit, match="a fold leaves out its own"):
        training_split(phantom_dataset, fold=1, left_out={phantom_dataset.name: ["2"]})
