"""Ablations: trained, evaluated, resumed, shared by two calls, compared, and their failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ablate
from fsmis_components.data.errors import DataError
from fsmis_components.data.weights import save_state
from fsmis_components.evaluation import fold_training
from fsmis_components.networks import ALPNet
from phantom import write_dataset

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "ssl_alpnet"
PLAN: dict[str, Any] = {
    "folds": [0, 3],
    "seeds": [1, 2],
    "reference": "full",
    "stages": [{"epochs": 2}],
    "structures": {"rimmed": 2, "striped": 3},
    "common": {"spatial_size": 32},
    "variants": {"full": {}, "without L_align": {"alignment_weight": 0.0}},
}
SMALL = {**PLAN, "folds": [3], "seeds": [1]}


class FakeTraining:
    """Stands in for the command: leaves random weights, drawn from the seed, at once."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.broken: set[int] = set()  # folds
        self.seconds = 0.0  # its clock

    def __call__(self, root: Path, knobs: dict[str, Any]) -> None:
        self.calls.append(knobs)
        if knobs["fold"] in self.broken:
            raise DataError("image_7.nii.gz: damaged; export it again.")
        self.seconds += 60
        output = Path(knobs["output_dir"])
        state = {"epoch": 2, "settings": {"epochs": 2}, "seconds": 60.0}
        save_state(state, output / "training_state")
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
    for module in (fold_training, ablate):
        monkeypatch.setattr(module, "monotonic", lambda: training.seconds)
    return training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight") / "phantoms"
    return write_dataset(folder, count=8, seed=3, shape=(48, 40, 10))


def run(dataset: Path, output: Path, plan: dict[str, Any] = PLAN, *words: str) -> int:
    path = output.parent / f"{output.name}.json"
    path.write_text(json.dumps(plan))
    base = ["--bundle", str(BUNDLE), "--dataset_dir", str(dataset), "--plan", str(path)]
    return ablate.main([*base, "--output_dir", str(output), *words])


def tables(output: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Rows of `ablation.md` by heading and first cell."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for section in (output / "ablation.md").read_text().split("# ")[1:]:
        lines = [ln.strip("| ").split(" | ") for ln in section.splitlines() if ln.startswith("| ")]
        head, rows = lines[0] if lines else [], lines[2:]
        heading = section.splitlines()[0]
        found[heading] = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    return found


def test_every_piece_is_trained_evaluated_and_compared(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    assert run(dataset, tmp_path / "o") == 0
    assert fake.trained() == [
        f"{variant}_seed{seed}/fold{fold}"
        for seed in (1, 2)
        for variant in ("full", "without_L_align")
        for fold in (0, 3)
    ]
    last = fake.calls[-1]
    assert (last["seed"], last["alignment_weight"], last["epochs"]) == (2, 0.0, 2)
    assert last["spatial_size"] == 32 and "alignment_weight" not in fake.calls[0]
    # the figures again, from the records
    dice: dict[str, list[float]] = {"full": [], "without L_align": []}
    for path in (tmp_path / "o" / "evaluated").glob("cases/*/*/*.json"):
        for row in json.loads(path.read_text()).get("rows", []):
            if row["protocol"] == "wv":
                dice[row["method"].partition(",")[0]].append(row["dice"])
    # seeds, cases of both folds, structures: equally many of each, so a plain mean is the mean
    assert [len(own) for own in dice.values()] == [2 * 3 * 2] * 2
    full, without = (sum(own) / len(own) for own in dice.values())
    found = tables(tmp_path / "o")
    overview = found["Ablation: what each part of ssl_alpnet is worth"]["full (reference)"]
    assert float(overview["WV Dice, %"]) == pytest.approx(full, abs=0.051)
    assert overview["trainings"] == "4 of 4"
    row = found["What a part is worth: WV Dice, %"]["without L_align"]
    difference = float(row["difference [95 %]"].split()[0])
    assert difference == pytest.approx(full - without, abs=0.051)
    assert row["cases"] == "3"
    seeds = [float(row["seed 1"]), float(row["seed 2"])]
    assert sum(seeds) / 2 == pytest.approx(difference, abs=0.11)
    row = found["What a part is worth: WV HD95, mm"]["without L_align"]  # less is better
    worse = float(row["without it"]) - float(row["with it"])
    assert float(row["difference [95 %]"].split()[0]) == pytest.approx(worse, abs=0.11)
    assert "Not finished yet" not in found


def test_a_ladder_compares_each_step_with_the_one_before(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    assert run(dataset, tmp_path / "o", {**SMALL, "ladder": ["without L_align", "full"]}) == 0
    rows = tables(tmp_path / "o")["What a part is worth: EP1 Dice, %"]
    part, step = rows["without L_align"], rows["step: full"]
    assert {**part, "without": ""} == {**step, "without": ""}


def test_nothing_is_done_twice_and_two_calls_share_a_folder(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    plan = {**PLAN, "folds": [3]}
    together, apart = tmp_path / "together", tmp_path / "apart"
    assert run(dataset, together, plan) == 0
    assert run(dataset, apart, plan, "--seeds", "2") == 0
    page = (apart / "ablation.md").read_text()
    assert "## Not finished yet\n\n- full, seed 1, fold 3: 0 of 1 cases\n- without" in page
    assert run(dataset, apart, plan, "--seeds", "1", "--variants", "without L_align") == 0
    assert run(dataset, apart, plan, "--seeds", "1", "--variants", "full") == 0
    assert (together / "ablation.md").read_text() == (apart / "ablation.md").read_text()
    records = {path: path.stat().st_mtime_ns for path in apart.glob("evaluated/*/*/*/*")}
    before = len(fake.calls)
    assert run(dataset, apart, plan) == 0
    assert len(fake.calls) == before and len(records) >= 8
    assert records == {path: path.stat().st_mtime_ns for path in records}
    assert ablate.main(["--report_only", "--output_dir", str(apart)]) == 0


def test_a_plan_may_grow_but_not_change(
    fake: FakeTraining, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**SMALL, "variants": {"full": {}}}
    assert run(dataset, tmp_path / "o", small) == 0
    for changes in (
        {"stages": [{"epochs": 3}]},
        {"structures": None},
        {"common": {"spatial_size": 48}},
        {"variants": {"full": {"learning_rate": 0.1}}},
        {"variants": {"full": {}, "other": {}}, "common": {}},
    ):
        assert run(dataset, tmp_path / "o", {**small, **changes}) == 1
        assert "holds another plan" in capsys.readouterr().err
    assert len(fake.calls) == 1
    noted = tmp_path / "o" / "plan.json"  # as an earlier version wrote it
    noted.write_text(json.dumps({"format": 1, **json.loads(noted.read_text())}))
    assert run(dataset, tmp_path / "o", SMALL) == 0
    assert fake.trained()[1:] == ["without_L_align_seed1/fold3"]


def test_a_failure_does_not_stop_the_others(
    fake: FakeTraining, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken = {0}
    assert run(dataset, tmp_path / "o", {**PLAN, "seeds": [1]}) == 1
    said = "fold0: image_7.nii.gz: damaged; export it again."
    failures = [f"full, seed 1: {said}", f"without L_align, seed 1: {said}"]
    assert [line for line in capsys.readouterr().err.splitlines() if said in line] == failures
    page = (tmp_path / "o" / "ablation.md").read_text()
    assert "- full, seed 1, fold 0: 0 of all cases" in page and "seed 1, fold 3:" not in page


def test_ends_in_time(
    fake: FakeTraining, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training takes a minute here, and an evaluation none."""
    assert run(dataset, tmp_path / "o", {**PLAN, "folds": [3]}, "--minutes", "2.5") == 0
    assert [call["max_minutes"] for call in fake.calls] == [2.5, 1.5]
    assert "the time is over before full, seed 2; give the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        (["--variants", "odd"], {}, "variants: the plan has no odd; it has full, without"),
        (["--seeds", "3"], {}, "seeds: the plan has no 3"),
        (["--folds", "1"], {}, "folds: the plan has no 1"),
        ([], {"folds": [9]}, "fold"),
        ([], {"odd": 1}, "not the plan of an ablation"),
        ([], {"reference": "all"}, "reference and ladder: expected some of full, without"),
        ([], {"common": {"seed": 1}}, "list it under seeds instead"),
        ([], {"variants": {"full": {}, "full.": {}}}, "the folders of two variants would be one"),
        ([], {"variants": {"full": {"hpg": "none"}}}, "variant full: overrides: train.json has no"),
        ([], {"structures": {"liver": 9}}, "9"),
        (["--dataset_dir", "nowhere"], {}, "nowhere"),
        (["--bundle", "nowhere"], {}, "nowhere"),
        (["--plan", "nowhere.json"], {}, "nowhere.json: cannot be read"),
        (["--bundle", ""], {}, "cannot be read"),
        (["--report_only"], {}, "no ablation there"),
    ],
)
def test_rejects_in_one_sentence_before_anything_is_written(
    words: list[str], changes: dict[str, Any], sentence: str, fake: FakeTraining, dataset: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(dataset, tmp_path / "o", {**PLAN, **changes}, *words) == 1
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists() and not fake.calls


def test_the_plan_of_the_readme_and_of_each_bundle_is_read(tmp_path: Path) -> None:
    page = (REPOSITORY / "fsmis_components" / "evaluation" / "README.md").read_text()
    text = page.partition("## Ablations")[2].partition("```json\n")[2].partition("```")[0]
    (tmp_path / "plan.json").write_text(text)
    paths = [tmp_path / "plan.json", *REPOSITORY.glob("bundles/*/configs/ablation.json")]
    assert len(paths) == 3
    assert {ablate.read_ablation_plan(path).reference for path in paths} >= {"full"}
