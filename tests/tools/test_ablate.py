"""Ablations: trained, evaluated, resumed, compared, and their failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_training import FakeTraining

import ablate
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


def weights(knobs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random ones, drawn from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(knobs["seed"] + 10 * ("alignment_weight" in knobs))
        return ALPNet().state_dict()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    training = FakeTraining(weights)
    monkeypatch.setattr(fold_training, "run_training", training)
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


def lines(output: Path) -> dict[tuple[str, str], list[str]]:
    """Cells of `ablation.md` by protocol and variant."""
    text = (output / "ablation.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in text if line.startswith("| ")]
    return {(row[0], row[1]): row[2:] for row in cells[2:]}


def test_every_piece_is_trained_evaluated_and_compared(
    fake: FakeTraining, dataset: Path, tmp_path: Path
) -> None:
    assert run(dataset, tmp_path / "o") == 0
    assert ["/".join(Path(call["output_dir"]).parts[-3:-1]) for call in fake.calls] == [
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
    found = lines(tmp_path / "o")
    assert float(found["whole volume", "full"][0]) == pytest.approx(full, abs=0.051)
    mean, change, _, cases = found["whole volume", "without L_align"]
    assert float(mean) == pytest.approx(without, abs=0.051)
    assert float(change.split()[0]) == pytest.approx(full - without, abs=0.051) and cases == "3"
    assert len(found) == 4
    # the same command again does nothing twice
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").rglob("cases/*/*/*")}
    assert run(dataset, tmp_path / "o", {**PLAN, "seeds": [1]}) == 0
    assert len(fake.calls) == 8 and lines(tmp_path / "o") == found
    assert records == {path: path.stat().st_mtime_ns for path in records}


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        ([], {"odd": 1}, "expected common, folds, reference"),
        ([], {"reference": "all"}, "reference: expected one of full, without"),
        ([], {"common": {"seed": 1}}, "list it under seeds instead"),
        (["--dataset_dir", "nowhere"], {}, "nowhere"),
        (["--bundle", "nowhere"], {}, "nowhere"),
        (["--plan", "nowhere.json"], {}, "nowhere.json: cannot be read"),
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
    assert {ablate.read_ablation_plan(path)["reference"] for path in paths} >= {"full"}
