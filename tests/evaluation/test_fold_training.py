"""Folds trained by one command: order, resuming, failures, and one real training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fake_training import FakeTraining

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.training_cases import fold_split
from fsmis_components.episodes import CorpusSettings, EpisodeDataset, EpisodeRule
from fsmis_components.evaluation import fold_training
from fsmis_components.evaluation.fold_training import dropped_slices, train_folds
from fsmis_components.networks import ALPNet
from fsmis_components.transforms import PseudoLabels
from phantom import write_dataset

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssl_alpnet"
PLAN = {"stages": [{"epochs": 3, "episodes_per_epoch": 10}, {"epochs": 2, "seed": 2}]}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    training = FakeTraining(lambda k: {"w": torch.tensor([k["fold"], k.get("epochs", 40)])})
    monkeypatch.setattr(fold_training, "run_training", training)
    return training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("six") / "phantoms", count=6, seed=3, shape=(64, 56, 10)
    )


def places(fake: FakeTraining, output: Path) -> list[str]:
    return [str(Path(str(c["output_dir"])).relative_to(output)) for c in fake.calls]


def test_trains_each_stage_of_each_fold(fake: FakeTraining, dataset: Path, tmp_path: Path):
    assert train_folds(BUNDLE, dataset, tmp_path, [1, 0], plan=PLAN) == []
    expected = ["fold0/stage1", "fold0/stage2", "fold1/stage1", "fold1/stage2"]
    assert places(fake, tmp_path) == expected
    first, second = fake.calls[:2]
    assert first == {
        "dataset_dir": str(dataset),
        "fold": 0,
        "output_dir": str(tmp_path / "fold0" / "stage1"),
        "epochs": 3,
        "episodes_per_epoch": 10,
        "cache_dir": str(tmp_path / "pseudo_labels"),
    }
    assert second["initial_weights"] == str(tmp_path / "fold0/stage1/models/model.pt")
    assert (second["epochs"], second["seed"]) == (2, 2)
    assert json.loads((tmp_path / "training.json").read_text()) == {
        "format": 1,
        "bundle": "ssl_alpnet",
        "setting": "1",
        "groups": [None],
        "dataset": "phantoms",
        "plan": PLAN,
        "overrides": {},
    }
    weights = torch.load(tmp_path / "fold0" / "model.pt", weights_only=True)
    assert weights["w"].tolist() == [0, 2]  # the last ones, and what they come from
    facts = json.loads((tmp_path / "fold0" / "finished.json").read_text())
    assert facts["sha256"] == file_hash(tmp_path / "fold0" / "model.pt")
    assert facts["seconds"] == (3 + 2) * 60 and facts["versions"]["torch"] == torch.__version__
    assert not list(tmp_path.rglob(".*"))


def test_each_fold_can_begin_with_weights_of_its_own(
    fake: FakeTraining, dataset: Path, tmp_path: Path
):
    for name in ("fold0", "fold1"):
        (tmp_path / "other" / name).mkdir(parents=True)
        (tmp_path / "other" / name / "model.pt").write_text(name)
    begin = str(tmp_path / "other" / "{fold}" / "model.pt")
    output = tmp_path / "trained"
    assert (
        train_folds(
            BUNDLE, dataset, output, [0, 1], plan=PLAN, overrides={"initial_weights": begin}
        )
        == []
    )
    used = [Path(c["initial_weights"]).relative_to(tmp_path).as_posix() for c in fake.calls]
    assert used == [
        "other/fold0/model.pt",
        "trained/fold0/stage1/models/model.pt",
        "other/fold1/model.pt",
        "trained/fold1/stage1/models/model.pt",
    ]
    facts = json.loads((output / "fold1" / "finished.json").read_text())
    assert facts["initial_weights"] == file_hash(tmp_path / "other/fold1/model.pt")


def test_setting_2_trains_groups_within_folds_and_lists_slices(
    fake: FakeTraining, dataset: Path, tmp_path: Path
):
    plan = {"stages": [{"epochs": 1}]}
    arguments = {"setting": 2, "exclude_rule": "all", "structure_groups": [[2, 3], [1, 4]]}
    assert train_folds(BUNDLE, dataset, tmp_path, [0, 1], plan=plan, **arguments) == []
    folders = [f"fold{fold}_{group}" for fold in (0, 1) for group in ("2-3", "1-4")]
    assert places(fake, tmp_path) == [f"{name}/stage1" for name in folders]
    asked = [(c["setting"], c["test_structures"], c["exclude_rule"]) for c in fake.calls]
    assert asked == [(2, [2, 3], "all"), (2, [1, 4], "all")] * 2
    training = json.loads((tmp_path / "training.json").read_text())
    assert (training["setting"], training["groups"]) == ("2-all", [[2, 3], [1, 4]])
    split = fold_split(find_cases(dataset, labels="required"), 0)
    facts = json.loads((tmp_path / "fold0_2-3" / "finished.json").read_text())
    assert facts["dropped_slices"] == dropped_slices(split.train, [2, 3], "all")
    assert 0 < facts["dropped_slices"]["dropped"] < facts["dropped_slices"]["of"]


def test_goes_on_where_it_was(
    fake: FakeTraining, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fake.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        train_folds(BUNDLE, dataset, tmp_path, [0, 1], plan=PLAN)
    fake.calls.clear()
    fake.stop_after = None
    assert train_folds(BUNDLE, dataset, tmp_path, [0, 1], plan=PLAN) == []
    assert places(fake, tmp_path) == ["fold1/stage2"]
    fake.calls.clear()
    (tmp_path / "fold1" / "finished.json").unlink()  # interrupted between copying and noting
    capsys.readouterr()
    assert train_folds(BUNDLE, dataset, tmp_path, [0, 1], plan=PLAN) == []
    assert not fake.calls
    assert capsys.readouterr().out.splitlines() == ["fold0: is finished", "fold1: finished"]


def test_a_failure_does_not_stop_the_other_folds(fake: FakeTraining, dataset: Path, tmp_path: Path):
    fake.broken = {0}
    failures = train_folds(BUNDLE, dataset, tmp_path, [0, 1], plan=PLAN)
    assert failures == ["fold0: image_7.nii.gz: damaged; export it again."]
    assert (tmp_path / "fold1" / "finished.json").is_file()
    (tmp_path / "fold1" / "stage1" / "training_state" / "state.pt").write_bytes(b"")
    (tmp_path / "fold1" / "finished.json").unlink()
    (tmp_path / "fold2").mkdir()
    (tmp_path / "fold2" / "finished.json").write_text("[]")
    fake.broken = set()
    failures = train_folds(BUNDLE, dataset, tmp_path, [0, 1, 2], plan=PLAN)
    assert len(failures) == 2
    assert failures[0].startswith("fold1: ") and "state.pt" in failures[0]
    assert "finished.json: cannot be read" in failures[1]
    assert (tmp_path / "fold0" / "finished.json").is_file()


def test_weights_that_are_not_those_of_the_training_are_refused(
    fake: FakeTraining, dataset: Path, tmp_path: Path
):
    train_folds(BUNDLE, dataset, tmp_path, [0], plan=PLAN)
    (tmp_path / "fold0" / "model.pt").write_bytes(b"other")
    failures = train_folds(BUNDLE, dataset, tmp_path, [0], plan=PLAN)
    assert "not the weights that finished.json names" in failures[0]
    (tmp_path / "fold0" / "finished.json").unlink()
    assert train_folds(BUNDLE, dataset, tmp_path, [0], plan=PLAN) == []
    (tmp_path / "fold0" / "finished.json").unlink()
    (tmp_path / "fold0" / "stage2" / "models" / "model.pt").unlink()
    failures = train_folds(BUNDLE, dataset, tmp_path, [0], plan=PLAN)
    assert "missing, though all epochs are done" in failures[0]


def test_another_training_is_not_mixed_in(fake: FakeTraining, dataset: Path, tmp_path: Path):
    train_folds(BUNDLE, dataset, tmp_path, [0], plan=PLAN)
    before = (tmp_path / "training.json").read_text()
    for changes, said in (
        ({"overrides": {"seed": 3}}, "overrides"),
        ({"plan": {"stages": [{"epochs": 3}]}}, "plan"),
        ({"setting": 2, "structure_groups": [[2, 3]]}, "groups, setting"),
    ):
        with pytest.raises(DataError, match=rf"holds results that differ in {said};"):
            train_folds(BUNDLE, dataset, tmp_path, [1], **({"plan": PLAN} | changes))
    assert (tmp_path / "training.json").read_text() == before
    assert len(fake.calls) == 2
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(DataError, match="training.json: cannot be read"):
        train_folds(BUNDLE, dataset, tmp_path, [1], plan=PLAN)
    (tmp_path / "training.json").unlink()
    with pytest.raises(DataError, match="no training.json says what it comes from"):
        train_folds(BUNDLE, dataset, tmp_path, [1], plan=PLAN)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setting": 3}, "setting and exclude_rule: expected 1 or 2"),
        ({"setting": 2, "structure_groups": [[1], []]}, "Setting 2 needs the label values"),
        ({"structure_groups": [[1]]}, "Setting 1 takes none"),
        ({"folds": [5]}, "fold: expected a number from 0 to 4"),
        ({"overrides": {"fold": 1}}, "fold is set by"),
        ({"overrides": {"epoch": 1}}, "train.json has no knob epoch"),
        ({"plan": {"stages": [3]}}, "plan: expected"),
        ({"plan": {"stages": [{}, {"initial_weights": "a"}]}}, "stage 2: initial_weights is set"),
        ({"plan": "nowhere.json"}, "nowhere.json"),
        ({"dataset_dir": "nowhere"}, "nowhere: there is no such"),
        ({"bundle_root": "nowhere"}, "train.json"),
    ],
)
def test_rejects_before_anything_is_written(
    fake: FakeTraining, dataset: Path, tmp_path: Path, changes: dict, said: str
):
    arguments = {"bundle_root": BUNDLE, "dataset_dir": dataset, "output_dir": tmp_path / "out"}
    with pytest.raises(DataError, match=said):
        train_folds(**(arguments | changes))
    assert not (tmp_path / "out").exists() and not fake.calls


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


@pytest.mark.slow
def test_a_real_training(dataset: Path, tmp_path: Path, capfd):
    small = {
        "spatial_size": 48,
        "pseudo_label_min_size": [150],
        "pseudo_labels_per_pair": 2,
        "val_episodes": 1,
        "episodes_per_epoch": 1,
        "epochs": 1,
    }
    first = ALPNet().state_dict()
    torch.save(first, tmp_path / "model.pt")
    begin = {"initial_weights": str(tmp_path / "model.pt"), "learning_rate": 0.0, **small}
    output = tmp_path / "folder with a blank"
    arguments = {"plan": {"stages": [{}]}, "setting": 2, "structure_groups": [[4]]}
    assert train_folds(BUNDLE, dataset, output, [2], overrides=begin, **arguments) == []
    assert "epoch: [1/1] 100%" in capfd.readouterr().err  # the training's own bar
    last = torch.load(output / "fold2_4" / "model.pt", weights_only=True)
    # it begins from the given weights and, at a learning rate of 0, stays there
    names = [name for name in first if "running" not in name and "num_batches" not in name]
    assert names and all(torch.equal(first[name], last[name]) for name in names)
    facts = json.loads((output / "fold2_4" / "finished.json").read_text())
    assert facts["seconds"] > 0 and facts["dropped_slices"]["dropped"] > 0
