"""Knobs that do not arrive as they were typed end every command with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_folders import REFERENCE
from monai.bundle import ConfigParser, ConfigWorkflow

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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_and_switch_of_a_config_is_checked_first(bundle: Path, command: str) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in COMMANDS[command]])
    assert parser["initialize"][:2] == ["@package", "@knobs"]
    checked, knobs = parser["knobs"], parser.get().keys() - NOT_PATHS
    paths = {name for name in knobs if name.endswith(PATHS)} - {"bundle_root"}
    assert {name: f"@{name}" for name in paths} == checked["paths"]
    switches = {name for name in knobs if isinstance(parser[name], bool)} | {"amp"}
    assert {**{name: f"@{name}" for name in switches}, "amp": "@half_precision"} == checked[
        "switches"
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_knob_ends_the_command(command: str) -> None:
    paths = ["bundle_root", "dataset_dir"]
    paths.append("initial_weights" if command == "train" else "weights")
    for name in paths:
        with pytest.raises(SystemExit, match=rf"^--{name}: expected the path"):
            workflow(REFERENCE, command, **{name: 20241128}).initialize()
    with pytest.raises(SystemExit, match="^--ignore_spacing: expected True or False"):
        workflow(REFERENCE, command, ignore_spacing="no").initialize()


@pytest.mark.parametrize("command", COMMANDS)
def test_half_precision_by_word(command: str) -> None:
    """Left alone, training decides by the processor and inference stays exact."""
    alone = native_bfloat16() if command == "train" else False
    for knobs, used in (({"amp": "false"}, False), ({"amp": True}, True), ({}, alone)):
        parser = workflow(REFERENCE, command, device="cpu", **knobs).parser
        assert parser.get_parsed_content("half_precision") is used
