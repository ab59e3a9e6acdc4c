"""Episodes between patients as tensors: repeatable, of real geometry, mixed by the batch."""

from __future__ import annotations

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
    MixedEpisodes,
    PatientEpisodeDataset,
    PatientRule,
    PatientTransform,
)
from fsmis_components.transforms import PseudoLabels

SMALL = CorpusSettings(spatial_size=64)
RULE = PatientRule(num_ways=3, sections=(1, 3))


@pytest.fixture(scope="module")
def cases(phantom_dataset: Path) -> list[Case]:
    return find_cases(phantom_dataset, labels="required")[:3]


def dataset(cases: list[Case], **changes: object) -> PatientEpisodeDataset:
    arguments: dict[str, object] = {
        "rule": RULE,
        "transform": PatientTransform(),
        "settings": SMALL,
        "seed": 5,
        "batch_size": 2,
    }
    return PatientEpisodeDataset(cases, **(arguments | changes))


def test_items_depend_on_seed_and_number_alone(cases: list[Case]) -> None:
    first, second, other = dataset(cases), dataset(cases), dataset(cases, seed=6)
    second[3]  # reading another item first changes nothing
    for name, tensor in first[7].items():
        assert torch.equal(tensor, second[7][name])
    assert not torch.equal(first[7]["image"], other[7]["image"])


def test_masks_lie_on_their_structures(cases: list[Case]) -> None:
    plain = dataset(cases, transform=None)
    episode = plain.drawer.draw(0)
    item = plain[0]
    volume = plain.corpus[episode.query]
    expected = volume.label.native(episode.query_slice, episode.query_slice + 1)[0]
    for way, structure in enumerate(episode.ways):
        share = float((expected == structure).mean())
        padded = np.prod(volume.label.working_size) / 64**2
        assert float(item["label"][way].mean()) == pytest.approx(share * padded, abs=0.02)


def test_near_isotropic_scans_are_cut_in_three_planes(tmp_path: Path) -> None:
    label = np.zeros((24, 20, 22), np.uint8)
    label[6:18, 5:15, 6:16] = 4
    for number in (1, 2):
        image = label * 50.0 + np.random.default_rng(number).normal(100, 5, label.shape)
        for kind, data in (("image", image.astype(np.float32)), ("label", label)):
            file = nibabel.Nifti1Image(data, np.diag([1, 1, 1.2, 1]))
            nibabel.save(file, tmp_path / f"{kind}_{number}.nii.gz")
    cases = find_cases(tmp_path, labels="required")
    found = dataset(cases, transform=None)
    assert {volume.table.domain[1] for volume in found.corpus} == {0, 1, 2}
    axial = CorpusSettings(spatial_size=64, slice_axis="axial")
    assert {v.table.domain[1] for v in dataset(cases, settings=axial).corpus} == {2}


def test_batches_are_of_one_kind(cases: list[Case]) -> None:
    label_free = EpisodeDataset(
        cases,
        PseudoLabels(min_size=300),
        EpisodeRule(num_ways=3, min_area=20),
        settings=SMALL,
        length=60,
    )
    supervised = dataset(cases, rule=PatientRule(num_ways=2))
    mixed = MixedEpisodes(label_free, supervised, 0.5, batch_size=2, seed=1)
    kinds = [mixed[index]["label"].shape[0] for index in range(60)]
    assert kinds[::2] == kinds[1::2] and {2, 3} == set(kinds)
    assert len(mixed) == 60


def test_a_scan_without_a_label_is_refused(cases: list[Case]) -> None:
    with pytest.raises(SystemExit, match="need a label for each scan"):
        dataset([Case("x", cases[0].image)])


def test_cases_that_are_left_out_are_in_no_training(phantom_dataset: Path) -> None:
    split = training_split(phantom_dataset, left_out={phantom_dataset.name: ["2"]})
    assert [c.name for c in split.held_out] == ["2"]
    assert [c.name for c in split.train] == ["1", "3", "4"]
    with pytest.raises(SystemExit, match="no such case lies there"):
        training_split(phantom_dataset, left_out={phantom_dataset.name: ["9"]})
    with pytest.raises(SystemExit, match="a fold leaves out its own"):
        training_split(phantom_dataset, fold=1, left_out={phantom_dataset.name: ["2"]})
