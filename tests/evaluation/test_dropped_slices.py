from pathlib import Path

import numpy as np
import pytest
from block_scans import AFFINE, write_nifti

from fsmis_components.data.cases import Case, find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.episodes import CorpusSettings, EpisodeDataset, EpisodeRule
from fsmis_components.evaluation.fold_training import dropped_slices
from fsmis_components.transforms import PseudoLabels

# label values that each slice shows
SHOWN = [(), (1,), (1, 2), (2,), (2, 3), (1, 2, 3), ()]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    label = np.zeros((9, 8, len(SHOWN)), np.uint8)
    for z, values in enumerate(SHOWN):
        for value in values:
            label[value, value, z] = value
    image = np.arange(label.size, dtype=np.int16).reshape(label.shape)
    return Case(
        "one",
        write_nifti(tmp_path / "image_one.nii.gz", image),
        write_nifti(tmp_path / "label_one.nii.gz", label),
    )


def indices(found) -> list[int]:
    return [index for _, index, _ in found[0]]


def test_index_counts_from_inferior_whatever_the_storage(tmp_path: Path):
    label = np.zeros((9, 8, 5), np.uint8)
    label[4, 4, 0] = 1  # stored first, on top of the body
    upside_down = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    case = Case(
        "a",
        write_nifti(tmp_path / "image_a.nii.gz", label.astype(np.int16), upside_down),
        write_nifti(tmp_path / "label_a.nii.gz", label, upside_down),
    )
    assert indices(dropped_slices([case], [1])) == [4]
    sagittal = dropped_slices([case], [1], slice_axis="sagittal")
    assert (indices(sagittal), sagittal[1]) == ([4], 9)


@pytest.mark.parametrize("rule", ["any", "all"])
@pytest.mark.parametrize("values", [(2, 3), (1, 4), (1, 2, 3, 4)])
def test_training_drops_the_same_slices(phantom_dataset: Path, rule: str, values: tuple):
    cases = find_cases(phantom_dataset, labels="required")
    found = dropped_slices(cases, values, rule)
    settings = CorpusSettings(spatial_size=32, exclude_labels=values, exclude_rule=rule)
    corpus = EpisodeDataset(
        cases, PseudoLabels(min_size=50), EpisodeRule(min_area=5), settings=settings
    ).corpus
    dropped = {(v.name, int(z)) for v in corpus for z in np.flatnonzero(~v.table.allowed)}
    assert {(case, index) for case, index, _ in found[0]} == dropped
    assert found[1] == sum(len(volume.images) for volume in corpus)


def test_rejects(case: Case):
    with pytest.raises(DataError, match="exclude_rule: expected any or all, got 'some'"):
        dropped_slices([case], [1], "some")
    with pytest.raises(DataError, match="this scan has none"):
        dropped_slices([Case("one", case.image)], [1])


@pytest.mark.parametrize(
    ("values", "all_percent", "any_percent"),
    [((1, 4), 37.9, 64.5), ((2, 3), 36.4, 45.1), ((1, 2, 3, 4), 12.3, 77.7)],
)
def test_shares_of_chaos(
    fsmis_data_dir: Path, values: tuple, all_percent: float, any_percent: float
):
    cases = find_cases(fsmis_data_dir / "chaos_t2", labels="required")
    for rule, percent in (("all", all_percent), ("any", any_percent)):
        dropped, total = dropped_slices(cases, values, rule)
        assert total == 718
        assert round(100 * len(dropped) / total, 1) == percent
