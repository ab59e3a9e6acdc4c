"""Knobs that do not arrive as they were typed end every command with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_folders import read_config
from monai.bundle import ConfigWorkflow

from fsmis_components.inferers.half_precision import native_bfloat16

COMMANDS = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}
PATHS = ("_dir", "_pack", "weights", "_path", "_file", "_root")
NOT_PATHS = {"package_path", "stored_support"}


def workflow(bundle: Path, command: str, **knobs: object) -> ConfigWorkflow:
    return ConfigWorkflow(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in COMMANDS[command]],
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        **{"bundle_root": str(bundle), **knobs},
    )


def knobs(bundle: Path, command: str) -> dict[str, object]:
    merged: dict[str, object] = {}
    for name in COMMANDS[command]:
        merged.update(read_config(bundle, name))
    return {k: v for k, v in merged.items() if "#" not in k and k not in NOT_PATHS}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_of_a_config_is_checked_first(bundle: Path, command: str) -> None:
    paths = [name for name in knobs(bundle, command) if name.endswith(PATHS)]
    assert {"bundle_root", "dataset_dir", "output_dir"} < set(paths)
    for name in paths:
        with pytest.raises(SystemExit) as raised:
            workflow(bundle, command, **{name: 20241128}).initialize()
        assert str(raised.value.code).startswith(f"--{name}: expected the path"), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_switch_of_a_config_is_checked_first(bundle: Path, command: str) -> None:
    names = [name for name, value in knobs(bundle, command).items() if isinstance(value, bool)]
    assert "ignore_spacing" in names
    for name in names:
        with pytest.raises(SystemExit) as raised:
            workflow(bundle, command, **{name: "no"}).initialize()
        assert f"--{name}: expected " in str(raised.value.code), name


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("amp", "used"), [("false", False), ("true", True), (True, True)])
def test_half_precision_by_word(bundle: Path, command: str, amp: object, used: bool) -> None:
    parser = workflow(bundle, command, amp=amp, device="cpu").parser
    assert parser.get_parsed_content("half_precision") is used


def test_training_decides_by_the_processor_and_inference_stays_exact(bundle: Path) -> None:
    parser = workflow(bundle, "train", device="cpu").parser
    assert parser.get_parsed_content("train#inferer").amp is native_bfloat16()
    for command in ("evaluate", "inference"):
        assert not workflow(bundle, command).parser.get_parsed_content("half_precision")
