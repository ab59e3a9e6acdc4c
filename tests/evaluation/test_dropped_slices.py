from pathlib import Path

import pytest

from fsmis_components.data.cases import find_cases
from fsmis_components.episodes import CorpusSettings, EpisodeDataset, EpisodeRule
from fsmis_components.evaluation.fold_training import dropped_slices
from fsmis_components.transforms import PseudoLabels


@pytest.mark.parametrize("rule", ["any", "all"])
@pytest.mark.parametrize("values", [(2, 3), (1, 4), (1, 2, 3, 4)])
def test_training_drops_the_same_slices(phantom_dataset: Path, rule: str, values: tuple):
    cases = find_cases(phantom_dataset, labels="required")
    found = dropped_slices(cases, values, rule)
    settings = CorpusSettings(spatial_size=32, exclude_labels=values, exclude_rule=rule)
    corpus = EpisodeDataset(
        cases, PseudoLabels(min_size=50), EpisodeRule(min_area=5), settings=settings
    ).corpus
    dropped = sum(int((~volume.table.allowed).sum()) for volume in corpus)
    assert found == {"dropped": dropped, "of": sum(len(volume.images) for volume in corpus)}


def test_shares_of_chaos(fsmis_data_dir: Path):
    cases = find_cases(fsmis_data_dir / "chaos_t2", labels="required")
    for values, all_percent, any_percent in (
        ((1, 4), 37.9, 64.5),
        ((2, 3), 36.4, 45.1),
        ((1, 2, 3, 4), 12.3, 77.7),
    ):
        for rule, percent in (("all", all_percent), ("any", any_percent)):
            found = dropped_slices(cases, values, rule)
            assert round(100 * found["dropped"] / found["of"], 1) == percent
