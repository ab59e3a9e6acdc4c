"""Episodes as tensors: repeatable, counted redraws, Setting 2, real geometry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fsmis_components.data.cases import Case, find_cases
from fsmis_components.episodes import (
    CorpusSettings,
    EpisodeDataset,
    EpisodeRule,
    EpisodeTransform,
)
from fsmis_components.transforms import PseudoLabels, WarpRanges

SMALL = CorpusSettings(spatial_size=64)
RULE = EpisodeRule(num_ways=3, min_area=20)


@pytest.fixture(scope="module")
def cases(phantom_dataset: Path) -> list[Case]:
    return find_cases(phantom_dataset)[:2]


def dataset(cases: list[Case], **changes: object) -> EpisodeDataset:
    arguments: dict[str, object] = {
        "pseudo_labels": PseudoLabels(min_size=300),
        "rule": RULE,
        "transform": EpisodeTransform(),
        "settings": SMALL,
        "seed": 5,
    }
    return EpisodeDataset(cases, **(arguments | changes))


def test_items_depend_on_seed_and_number_alone(cases: list[Case]) -> None:
    first, second, other = dataset(cases), dataset(cases), dataset(cases, seed=6)
    second[3]  # reading another item first changes nothing
    for name, tensor in first[7].items():
        assert torch.equal(tensor, second[7][name])
    assert not torch.equal(first[7]["image"], other[7]["image"])
    assert not torch.equal(first[7]["image"], first[8]["image"])


def test_transform_of_one_leaves_the_other_as_it_is(cases: list[Case]) -> None:
    plain = dataset(cases, transform=None)
    one = dataset(cases, transform=EpisodeTransform(which="one"))
    both = dataset(cases, transform=EpisodeTransform(which="both"))
    changed = {"image": 0, "support_image": 0}
    for i in range(12):
        expected = plain[i]
        for name in changed:
            changed[name] += int(not torch.equal(one[i][name], expected[name]))
            assert not torch.equal(both[i][name], expected[name])
    assert changed["image"] + changed["support_image"] == 12
    assert min(changed.values()) > 0
    with pytest.raises(ValueError, match="'both', 'one' or 'each'"):
        EpisodeTransform(which="none")


def test_each_transform_of_one_slice_draws_the_slice_anew(cases: list[Case]) -> None:
    """Over episodes, warp and gamma meet on one slice and strike different ones about as often."""
    plain = dataset(cases, transform=None)
    each = dataset(cases, transform=EpisodeTransform(which="each"))
    ways = set()
    for index in range(16):
        before, after = plain[index], each[index]
        warped = not torch.equal(before["label"], after["label"])
        assert warped != (not torch.equal(before["support_label"], after["support_label"]))
        touched = [not torch.equal(before[k], after[k]) for k in ("image", "support_image")]
        ways.add((warped, all(touched)))
    assert ways == {(True, True), (True, False), (False, True), (False, False)}


def test_lost_regions_are_redrawn_and_counted(cases: list[Case]) -> None:
    far = EpisodeTransform(warp=WarpRanges(translation=60))
    data = dataset(cases, transform=far)
    items = [data[i] for i in range(10)]
    assert sum(int(item["redraws"]) for item in items) > 0
    assert all(bool(item["label"].any(-1).any(-1).all()) for item in items)


def test_a_transform_that_loses_everything_is_an_error(cases: list[Case]) -> None:
    gone = EpisodeTransform(warp=WarpRanges(zoom=(0.001, 0.002)))
    with pytest.raises(RuntimeError, match="weaker transforms"):
        dataset(cases, transform=gone)[0]


def test_setting_2_without_labels_is_refused(cases: list[Case]) -> None:
    unlabelled = [Case(case.name, case.image) for case in cases]
    with pytest.raises(SystemExit, match="use --setting 1"):
        dataset(unlabelled, settings=CorpusSettings(64, exclude_labels=(1,)))
