from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ablate
from phantom import write_dataset

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundles" / "ssl_alpnet"
PLAN: dict[str, Any] = {
    "folds": [3],
    "seeds": [1, 2],
    "reference": "full",
    "stages": [
        {
            "epochs": 1,
            "episodes_per_epoch": 2,
            "val_episodes": 2,
            "pseudo_label_min_size": [100],
            "pseudo_labels_per_pair": 2,
        }
    ],
    "common": {"spatial_size": 32},
    "variants": {"full": {}, "without L_align": {"alignment_weight": 0.0}},
}


def write_plan(folder: Path, **changes: Any) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps({**PLAN, **changes}))
    return path


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    [
        (["--variants", "odd"], {}, "variants: the plan has no odd; name some of full, without"),
        (["--seeds", "3"], {}, "seeds: the plan has no 3"),
        (["--folds", "0"], {}, "folds: the plan has no 0"),
        ([], {"folds": []}, "folds: expected different numbers"),
        ([], {"reference": "all"}, "the reference all is no variant"),
        ([], {"variants": {"full": {"hpg": "none"}}}, "variant full: overrides: train.json has no"),
        (["--dataset_dir", "nowhere"], {}, "nowhere"),
        (["--bundle", "nowhere"], {}, "nowhere"),
        (["--plan", "nowhere.json"], {}, "nowhere.json: cannot be read"),
        (["--bundle", ""], {}, "--bundle and --dataset_dir: an ablation needs both"),
        (["--report_only"], {}, "no ablation there"),
    ],
)
def test_rejects_in_one_sentence(
    words: list[str], changes: dict[str, Any], sentence: str, phantom_dataset: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    plan = write_plan(tmp_path, **changes)
    base = ["--bundle", str(BUNDLE), "--dataset_dir", str(phantom_dataset), "--plan", str(plan)]
    assert ablate.main([*base, "--output_dir", str(tmp_path / "o"), *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_the_plan_of_the_bundle_is_the_default(
    phantom_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", str(tmp_path), "--dataset_dir", str(phantom_dataset)]
    assert ablate.main([*words, "--output_dir", str(tmp_path / "o")]) == 1
    assert str(tmp_path / "configs" / "ablation.json") in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_side_by_side(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d", count=6, seed=3, shape=(48, 40, 10))
    plan = write_plan(tmp_path, variants={"full": {}})
    output = tmp_path / "o"
    command = [sys.executable, "tools/ablate.py", "--output_dir", str(output), "--threads", "1"]
    whole = [*command, "--bundle", "bundles/ssl_alpnet", "--dataset_dir", str(dataset)]
    halves = [
        subprocess.Popen(
            [*whole, "--plan", str(plan), "--seeds", seed], cwd=REPOSITORY,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    for half in halves:
        said, _ = half.communicate()
        assert half.returncode == 0, said
    assert ablate.main(["--report_only", "--output_dir", str(output)]) == 0
    found = json.loads((output / "ablation.json").read_text())
    assert found["missing"] == []
    assert found["variants"]["full"]["seeds_of_fold"] == {"3": [1, 2]}
    assert len(set(found["weights"].values())) == 2  # each training has weights of its own
    facts = [json.loads(path.read_text()) for path in (output / "finished").iterdir()]
    assert {fact["training"]["threads"] for fact in facts} == {1}
    times = [path.stat().st_mtime_ns for path in (output / "trained").rglob("*.json")]
    assert subprocess.run([*whole, "--plan", str(plan)], cwd=REPOSITORY).returncode == 0
    assert times == [path.stat().st_mtime_ns for path in (output / "trained").rglob("*.json")]
