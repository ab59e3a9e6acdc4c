"""Pieces of an ablation: trained, evaluated, resumed, shared by two calls, and their failures."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fsmis_components.data.errors import DataError
from fsmis_components.data.sharded_file import save_sharded
from fsmis_components.evaluation import fold_training, runner
from fsmis_components.evaluation.ablation import (
    AblationPlan,
    read_ablation_plan,
    run_ablation,
    write_ablation,
)
from fsmis_components.evaluation.ablation import run as run_module
from fsmis_components.networks import ALPNet
from phantom import write_dataset

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssl_alpnet"
PLAN: dict[str, Any] = {
    "folds": [0, 3],
    "seeds": [1, 2],
    "reference": "full",
    "stages": [{"epochs": 2}],
    "structures": {"rimmed": 2, "striped": 3},
    "common": {"spatial_size": 32},
    "variants": {"full": {}, "without L_align": {"alignment_weight": 0.0}},
}


class FakeTraining:
    """Stands in for the command: leaves random weights, drawn from the seed, at once."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.broken: set[int] = set()  # folds
        self.stop_after: int | None = None  # calls
        self.seconds = 0.0  # its clock

    def __call__(self, command: list[str]) -> None:
        flags = [word[2:] for word in command[5::2]]
        values = [word if "/" in word[:1] else ast.literal_eval(word) for word in command[6::2]]
        knobs = dict(zip(flags, values, strict=True))
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(knobs)
        if knobs["fold"] in self.broken:
            raise DataError("image_7.nii.gz: damaged; export it again.")
        self.seconds += 60
        output = Path(knobs["output_dir"])
        state = {"epoch": 2, "settings": {"epochs": 2}, "seconds": 60.0}
        save_sharded(state, output / "training_state")
        (output / "models").mkdir()
        with torch.random.fork_rng():
            torch.manual_seed(knobs["seed"] + 10 * ("alignment_weight" in knobs))
            torch.save(ALPNet().state_dict(), output / "models" / "model.pt")

    def trained(self) -> list[str]:
        return ["/".join(Path(call["output_dir"]).parts[-3:-1]) for call in self.calls]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    training = FakeTraining()
    monkeypatch.setattr(fold_training, "run_training", training)
    for module in (fold_training, run_module):
        monkeypatch.setattr(module, "monotonic", lambda: training.seconds)
    return training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight") / "phantoms"
    return write_dataset(folder, count=8, seed=3, shape=(48, 40, 10))


def run(dataset: Path, output: Path, plan: dict[str, Any] = PLAN, **options: Any) -> list[str]:
    options = {"say": lambda _: None, "progress": False, **options}
    return run_ablation(read_ablation_plan(plan), BUNDLE, dataset, output, **options)


def numbers(output: Path) -> dict[str, Any]:
    return json.loads((output / "ablation.json").read_text())


def test_trains_and_evaluates_every_piece(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    assert run(dataset, tmp_path) == []
    assert fake.trained() == [
        f"{variant}_seed{seed}/fold{fold}"
        for seed in (1, 2)
        for variant in ("full", "without_L_align")
        for fold in (0, 3)
    ]
    last = fake.calls[-1]
    assert (last["seed"], last["alignment_weight"], last["epochs"]) == (2, 0.0, 2)
    assert last["spatial_size"] == 32 and "alignment_weight" not in fake.calls[0]
    found = numbers(tmp_path)
    assert found["missing"] == [] and found["about"]["bundle"] == "ssl_alpnet"
    full = found["variants"]["full"]
    assert full["parameters"] == sum(weight.numel() for weight in ALPNet().parameters())
    assert full["seeds_of_fold"] == {"0": [1, 2], "3": [1, 2]}
    assert full["counts"]["wv"]["scored"] == 2 * 3 * 2  # seeds, cases of both folds, structures
    measures = {entry["measure"]: entry for entry in found["differences"]}
    assert measures["wv_dice"]["count"] == 3 and set(measures["wv_dice"]["per_seed"]) == {"1", "2"}
    with (tmp_path / "ablation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 3
    # the table is made of the lines
    own = [line for line in lines if line["variant"] == "full"]
    mean = sum(float(line["wv_dice"]) for line in own) / len(own)
    assert full["figures"]["wv_dice"]["mean"] == pytest.approx(mean, abs=1e-3)


def test_nothing_is_done_twice(
    fake: FakeTraining, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {**PLAN, "folds": [3], "seeds": [1]}
    fake.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path, plan)
    assert numbers(tmp_path)["missing"] == ["without L_align, seed 1, fold 3"]
    fake.stop_after = None
    records = {path: path.stat().st_mtime_ns for path in tmp_path.glob("evaluated/*/*/*/*")}
    assert records
    # finished folds stay though the code has changed meanwhile
    monkeypatch.setattr(runner, "code_hash", lambda: "other code")
    monkeypatch.setattr(run_module, "code_hash", lambda: "other code")
    assert run(dataset, tmp_path, plan) == []
    assert fake.trained() == ["full_seed1/fold3", "without_L_align_seed1/fold3"]
    assert records == {path: path.stat().st_mtime_ns for path in records}
    about = numbers(tmp_path)["about"]
    assert len(about["code of the evaluation"]) == 2  # which the tables say
    assert numbers(tmp_path)["missing"] == []


def test_two_calls_share_a_folder(fake: FakeTraining, dataset: Path, tmp_path: Path) -> None:
    plan = {**PLAN, "folds": [0]}
    together, apart = tmp_path / "together", tmp_path / "apart"
    assert run(dataset, together, plan) == []
    assert run(dataset, apart, plan, seeds=[2]) == []
    assert numbers(apart)["missing"] == ["full, seed 1, fold 0", "without L_align, seed 1, fold 0"]
    assert run(dataset, apart, plan, seeds=[1], variants=["without L_align"]) == []
    assert run(dataset, apart, plan, seeds=[1], variants=["full"]) == []
    for ending in ("csv", "md"):
        texts = [(folder / f"ablation.{ending}").read_text() for folder in (together, apart)]
        assert texts[0] == texts[1]


def test_a_plan_may_grow_but_not_change(fake: FakeTraining, dataset: Path, tmp_path: Path) -> None:
    small = {**PLAN, "folds": [3], "seeds": [1], "variants": {"full": {}}}
    assert run(dataset, tmp_path, small) == []
    before = len(fake.calls)
    for changes, sentence in (
        ({"stages": [{"epochs": 3}]}, "differs in stages;"),
        ({"structures": None}, "differs in structures;"),
        ({"common": {"spatial_size": 48}}, "differs in common;"),
        ({"variants": {"full": {"learning_rate": 0.1}}}, "differs in the knobs of full;"),
    ):
        with pytest.raises(DataError, match=sentence):
            run(dataset, tmp_path, {**small, **changes})
    assert len(fake.calls) == before
    assert run(dataset, tmp_path, {**small, "variants": PLAN["variants"]}) == []
    assert fake.trained()[before:] == ["without_L_align_seed1/fold3"]
    assert [one["variant"] for one in numbers(tmp_path)["differences"]][0] == "without L_align"


def test_a_failure_does_not_stop_the_others(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    fake.broken = {0}
    failures = run(dataset, tmp_path, {**PLAN, "seeds": [1]})
    said = "fold0: image_7.nii.gz: damaged; export it again."
    assert failures == [f"full, seed 1, {said}", f"without L_align, seed 1, {said}"]
    missing = ["full, seed 1, fold 0", "without L_align, seed 1, fold 0"]
    assert numbers(tmp_path)["missing"] == missing
    page = (tmp_path / "ablation.md").read_text()
    assert "## Not finished yet" in page and "- full, seed 1, fold 0\n" in page


def test_damaged_weights_are_told_once_and_other_folds_evaluated(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    plan = {**PLAN, "seeds": [1], "variants": {"full": {}}}
    run(dataset, tmp_path, plan, folds=[0])
    (tmp_path / "trained" / "full_seed1" / "fold0" / "model.pt").write_bytes(b"other")
    failures = run(dataset, tmp_path, plan)
    assert len(failures) == 1 and "not the weights that finished.json names" in failures[0]
    assert numbers(tmp_path)["missing"] == []  # fold 0 was finished before, fold 3 is now


def test_half_an_evaluation_by_other_code_is_not_mixed(
    fake: FakeTraining, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {**PLAN, "folds": [3], "seeds": [1], "variants": {"full": {}}}
    assert run(dataset, tmp_path, plan) == []
    (note,) = (tmp_path / "finished").iterdir()
    note.unlink()  # as if it had been stopped before the last case
    monkeypatch.setattr(runner, "code_hash", lambda: "other code")
    (failure,) = run(dataset, tmp_path, plan)
    assert failure.startswith("full, seed 1, fold 3: ") and "differ in code" in failure
    assert "evaluated anew, without training" in failure
    folder = tmp_path / "evaluated" / "cases" / "full_seed_1" / "fold3_shots1_choice0"
    assert str(folder) in failure
    for path in folder.iterdir():
        path.unlink()
    assert run(dataset, tmp_path, plan) == [] and len(fake.calls) == 1


def test_ends_in_time(fake: FakeTraining, dataset: Path, tmp_path: Path) -> None:
    """A training takes a minute here, and an evaluation none."""
    said: list[str] = []
    assert run(dataset, tmp_path, minutes=2.5, folds=[3], say=said.append) == []
    assert fake.trained() == ["full_seed1/fold3", "without_L_align_seed1/fold3"]
    assert [call["max_minutes"] for call in fake.calls] == [2.5, 1.5]
    assert said[-1] == "the time is over before full, seed 2; give the same command to go on"
    assert len(numbers(tmp_path)["missing"]) == 8 - 2


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, {"variants": ["odd"]}, "variants: the plan has no odd"),
        ({}, {"folds": []}, "folds: the plan has no empty choice"),
        ({}, {"minutes": 0.5}, "minutes: expected at least 1, got 0.5"),
        ({"variants": {"full": {}, "odd": {"hpg": 1}}}, {}, "variant odd: .* no knob hpg"),
        ({"structures": {"liver": 9}}, {}, "9"),
    ],
)
def test_rejects_before_anything_is_written(
    fake: FakeTraining, dataset: Path, tmp_path: Path,
    changes: dict[str, Any], options: dict[str, Any], sentence: str,
) -> None:  # fmt: skip
    with pytest.raises(DataError, match=sentence):
        run(dataset, tmp_path / "out", {**PLAN, **changes}, **options)
    assert not (tmp_path / "out").exists() and not fake.calls


def test_too_few_or_unlabelled_scans(fake: FakeTraining, phantom: Path, tmp_path: Path) -> None:
    for folder in ("query", "scoring"):
        with pytest.raises(DataError):
            run(phantom / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not fake.calls


def test_tables_of_a_folder(fake: FakeTraining, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ablation there"):
        write_ablation(tmp_path)
    plan = {**PLAN, "folds": [3], "seeds": [1], "variants": {"full": {}}}
    fake.broken = {3}
    assert len(run(dataset, tmp_path, plan)) == 1
    assert write_ablation(tmp_path) == [] and not (tmp_path / "ablation.md").exists()
    fake.broken = set()
    run(dataset, tmp_path, plan)
    page = (tmp_path / "ablation.md").read_bytes()
    assert [path.name for path in write_ablation(tmp_path)] == [
        *("ablation.md", "ablation.json", "ablation.csv")
    ]
    assert (tmp_path / "ablation.md").read_bytes() == page
    (tmp_path / "evaluated" / "cases" / "full_seed_1" / ".half.json").write_text("{")
    write_ablation(tmp_path)  # what another process is writing is not read
    record = next((tmp_path / "evaluated" / "cases" / "full_seed_1").glob("fold3_*/[0-9].json"))
    record.unlink()
    with pytest.raises(DataError, match="holds 0 records of case"):
        write_ablation(tmp_path)
    (tmp_path / "finished" / "full_seed1_fold3.json").write_text("{}")
    with pytest.raises(DataError, match="not the note of a finished fold"):
        write_ablation(tmp_path)


def test_the_page_names_the_plan_of_the_readme() -> None:
    page = (BUNDLE.parents[1] / "fsmis_components" / "evaluation" / "README.md").read_text()
    text = page.partition("## Ablations")[2].partition("```json\n")[2].partition("```")[0]
    plan = read_ablation_plan(json.loads(text))
    assert isinstance(plan, AblationPlan) and plan.reference == "full"
