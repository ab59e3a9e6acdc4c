"""What the configs of a bundle must agree on, so that its knobs do what they say."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from bundle_folders import REFERENCE, build_network, network_knobs, read_config

from fsmis_components.evaluation.fold_training import read_plan

# knobs of a network that change how its weights begin, not what it is
NOT_THE_NETWORK = {"guided_init"}


def test_every_argument_of_the_network_is_a_knob_of_its_name(bundle: Path) -> None:
    arguments = read_config(bundle, "train")["network_def"]
    values = {k: v for k, v in arguments.items() if k not in ("_target_", "support_pack")}
    assert values == {name: f"@{name}" for name in values}
    accepted = inspect.signature(type(build_network(bundle))).parameters
    assert set(values) <= set(accepted)


def test_training_and_inference_begin_from_the_same_network(bundle: Path) -> None:
    knobs = network_knobs(bundle)
    inference = read_config(bundle, "inference")
    assert {name: inference.get(name) for name in knobs} == knobs


def test_a_resumed_training_is_one_of_the_same_network(bundle: Path) -> None:
    handlers = read_config(bundle, "train")["train"]["handlers"]
    [state] = [h for h in handlers if h["_target_"].endswith(".TrainingState")]
    settings = state["settings"]
    assert set(network_knobs(bundle)) - NOT_THE_NETWORK <= set(settings)
    # MONAI Label sets the epochs at the trainer, not by the knob
    assert settings.pop("epochs") == "@train#trainer#max_epochs"
    assert settings == {name: f"@{name}" for name in settings}


def test_the_paper_overlay_sets_nothing_but_what_is_there(bundle: Path) -> None:
    assert set(read_config(bundle, "paper")) <= set(read_config(bundle, "train"))


def test_the_plan_of_folds_fits_the_config(bundle: Path) -> None:
    assert all(stage.get("epochs", 1) > 0 for stage in read_plan(bundle))


@pytest.mark.parametrize(
    "name",
    ["between_patients.json", "evaluate.json", "multi_gpu_train.json", "logging.conf"],
)
def test_what_all_bundles_share_is_the_same_file(bundle: Path, name: str) -> None:
    own, other = ((folder / "configs" / name).read_bytes() for folder in (bundle, REFERENCE))
    assert own == other
