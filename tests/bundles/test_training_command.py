"""The training command: it trains, stops, goes on, and refuses, as a user would see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundle_folders import REFERENCE, REPOSITORY
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch import Tensor

SMALL = {
    "spatial_size": 64,
    "pseudo_label_min_size": [300],
    "pseudo_labels_per_pair": 2,
    "episodes_per_epoch": 4,
    "val_episodes": 2,
    "val_interval": 1,
    "epochs": 2,
}


def train(
    bundle: Path, dataset: Path, output: Path, *overlays: str, **changes: object
) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in ("train", *overlays)],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle),
        dataset_dir=str(dataset),
        output_dir=str(output),
        cache_dir=str(dataset.parent / "pseudo_labels"),  # shared by all trainings
        **(SMALL | changes),
    )
    workflow.initialize()
    return workflow


def weights(output: Path, name: str = "model.pt") -> dict[str, Tensor]:
    return torch.load(output / "models" / name, weights_only=True)


def assert_equal_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted(
    bundle: Path, phantom_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("training") / "whole"
    train(bundle, phantom_dataset, output).run()
    return output


def test_what_a_training_writes(uninterrupted: Path) -> None:
    assert (uninterrupted / "models" / "model_best.json").is_file()
    assert weights(uninterrupted, "model_best.pt").keys() == weights(uninterrupted).keys()
    assert list(uninterrupted.glob("events.out.tfevents*"))
    assert [path.name for path in uninterrupted.rglob(".*")] == [".writing"]


@pytest.mark.parametrize(("rank", "shown"), [(0, True), (1, False)])
def test_one_process_shows_the_progress_of_the_whole_training(
    rank: int,
    shown: bool,
    phantom_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    changes = {"episodes_per_epoch": 2, "val_interval": 3}
    train(REFERENCE, phantom_dataset, tmp_path / "out", **changes).run()
    said = capsys.readouterr().err
    for bar in ("training: [1/2]", "training: [2/2]", "epoch [1/2]"):
        assert (bar in said) == shown


def test_resume_equals_an_uninterrupted_training(
    bundle: Path, phantom_dataset: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "stopped"
    first = train(bundle, phantom_dataset, output, num_workers=2)
    trainer = first.parser.get_parsed_content("train#trainer")

    def stop(engine: object) -> None:
        raise KeyboardInterrupt  # in the middle of the second epoch

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), stop)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    path = uninterrupted / "models" / "model.pt"
    again = train(bundle, phantom_dataset, output, initial_weights=str(path))
    # what initial weights gave is replaced by the state of the training
    network = again.parser.get_parsed_content("network_def")
    assert_equal_weights(dict(network.state_dict()), weights(uninterrupted))
    torch.nn.init.zeros_(next(network.parameters()))
    again.run()
    assert_equal_weights(weights(output), weights(uninterrupted))


@pytest.mark.slow
def test_two_processes_train_together(phantom_dataset: Path, tmp_path: Path) -> None:
    root = REFERENCE.relative_to(REPOSITORY)
    configs = [f"{root}/configs/{name}.json" for name in ("train", "multi_gpu_train")]
    knobs = {"config_file": configs, "bundle_root": root, "dataset_dir": phantom_dataset, **SMALL}
    line = ["torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2", "-m"]
    line += ["monai.bundle", "run", "--output_dir", str(tmp_path / "out")]
    line += [word for name, value in knobs.items() for word in (f"--{name}", str(value))]
    result = subprocess.run(
        [sys.executable, "-m", *line], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert not any(name.startswith("module.") for name in weights(tmp_path / "out"))


def test_episodes_between_patients(phantom_dataset: Path, tmp_path: Path) -> None:
    left_out = {phantom_dataset.name: ["2", "4"]}
    changes = {"left_out": left_out, "absent_share": 0.5, "epochs": 1, "episodes_per_epoch": 8}
    workflow = train(REFERENCE, phantom_dataset, tmp_path / "out", "between_patients", **changes)
    learned = workflow.parser.get_parsed_content("cases")
    assert [case.name for case in learned.train] == ["1", "3"]
    assert [case.name for case in learned.held_out] == ["2", "4"]
    workflow.run()
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "out").values())


def test_a_mistake_is_found_before_any_scan_is_read(phantom_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="check the path"):
        train(REFERENCE, tmp_path / "missing", tmp_path / "out").run()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match="cannot be written .*choose another --output_dir"):
        train(REFERENCE, phantom_dataset, tmp_path / "file" / "output")
