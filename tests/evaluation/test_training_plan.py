import json
from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.training_plan import read_plan

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssl_alpnet"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "configs").mkdir()
    config = {"epochs": 7, "episodes_per_epoch": 3, "seed": 1, "initial_weights": "none"}
    (tmp_path / "configs" / "train.json").write_text(json.dumps(config))
    return tmp_path


def test_the_plan_of_ssl_alpnet():
    plan = read_plan(BUNDLE)
    assert plan.stages == (
        {
            "epochs": 30,
            "episodes_per_epoch": 100,
            "val_interval": 5,
            "train_window": 32,
            "seed": 1234,
        },
        {
            "epochs": 12,
            "episodes_per_epoch": 100,
            "val_interval": 6,
            "learning_rate": 0.0006,
            "seed": 2,
        },
    )
    assert [plan.episodes(stage) for stage in range(2)] == [3000, 1200]
    plan.require(["dataset_dir", "fold", "max_minutes", "initial_weights"])


def test_without_a_plan_there_is_one_stage_of_the_config(bundle: Path):
    plan = read_plan(bundle)
    assert (plan.stages, plan.num_stages, plan.changes(0)) == (({},), 1, {})
    assert plan.knobs(0)["epochs"] == 7 and plan.episodes(0) == 21


def test_overrides_win_over_stages_and_stages_over_the_config(bundle: Path):
    stages = {"stages": [{"epochs": 2, "seed": 5}, {"seed": 6}]}
    (bundle / "plan.json").write_text(json.dumps(stages))
    for given in (stages, bundle / "plan.json", str(bundle / "plan.json")):
        plan = read_plan(bundle, given, {"seed": 9})
        assert [plan.changes(stage) for stage in range(2)] == [
            {"epochs": 2, "seed": 9},
            {"seed": 9},
        ]
        assert [plan.episodes(stage) for stage in range(2)] == [6, 21]


@pytest.mark.parametrize(
    ("plan", "overrides", "said"),
    [
        ({"stages": []}, {}, 'expected {"stages"'),
        ({"stage": [{}]}, {}, 'expected {"stages"'),
        ({"stages": [{}], "epochs": 3}, {}, 'expected {"stages"'),
        ({"stages": [{}, {"epoch": 3}]}, {}, "stage 2: train.json has no knob epoch"),
        ({"stages": [{"fold": 3}]}, {}, "stage 1: fold is set by the training of folds"),
        ({"stages": [[]]}, {}, "stage 1: expected"),
        ({"stages": [{}, {"initial_weights": "none"}]}, {}, "begins from the stage before"),
        (None, {"learningrate": 1}, "overrides: train.json has no knob learningrate"),
        (None, {"max_minutes": 1}, "overrides: max_minutes is set by"),
        ("missing.json", {}, "missing.json: cannot be read"),
    ],
)
def test_rejects(bundle: Path, plan: object, overrides: dict, said: str):
    with pytest.raises(DataError, match=said):
        read_plan(bundle, plan, overrides)


def test_rejects_files(bundle: Path):
    with pytest.raises(DataError, match="train.json: cannot be read .* name the folder of a bundl"):
        read_plan(bundle / "configs")
    (bundle / "configs" / "fold_training.json").write_text("{")
    with pytest.raises(DataError, match="fold_training.json: not a readable JSON"):
        read_plan(bundle)
    with pytest.raises(DataError, match="no knob fold, max_minutes, which"):
        read_plan(bundle, {"stages": [{}]}).require(["fold", "epochs", "max_minutes"])
