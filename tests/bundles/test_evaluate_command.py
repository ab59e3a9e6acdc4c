"""Training config and evaluation overlay together: the fold's table is written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from block_scans import block_label, write_scan
from bundle_folders import REFERENCE
from monai.bundle import ConfigWorkflow, run


def settings(folder: Path) -> dict:
    configs = REFERENCE / "configs"
    return {
        "config_file": [str(configs / "train.json"), str(configs / "evaluate.json")],
        "logging_file": False,
        "bundle_root": str(REFERENCE),
        "dataset_dir": str(folder / "d"),
        "output_dir": str(folder / "o"),
        "weights": "none",
        "spatial_size": 32,
        "device": "cpu",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(1, 7):
        write_scan(tmp_path / "d", number, block_label())
    return tmp_path


def test_writes_the_table_of_the_fold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(fold=4, **settings(folder))
    with (folder / "o" / "ep1_fold4.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["support"] for row in rows} == {"1"}  # the next case, wrapping
    assert [row["structure"] for row in rows[:2]] == ["structure_1", "structure_2"]
    floor = [float(row["dice"]) for row in rows if row["method"] == "mask_copy"]
    assert floor == [100, 100]  # all labels are alike
    assert "whole volume" in capsys.readouterr().out


def test_too_few_labels_are_one_sentence(folder: Path) -> None:
    (folder / "d" / "label_2.nii.gz").unlink()
    with pytest.raises(SystemExit) as raised:
        run(**settings(folder))
    assert "image_2.nii.gz" in str(raised.value.code)


def test_metric_names_are_those_of_training(folder: Path) -> None:
    workflow = ConfigWorkflow(workflow_type="train", **settings(folder))
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    metrics = workflow.parser.get("validate#key_metric")
    assert evaluator.state.key_metric_name in metrics
