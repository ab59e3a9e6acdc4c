"""What the configs of a bundle must agree on, so that its knobs do what they say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_folders import REFERENCE, REPOSITORY, build_network, network_knobs, read_config

from fsmis_components.evaluation.fold_training import read_plan

# knobs of a network that change how its weights begin, not what it is
NOT_THE_NETWORK = {"guided_init"}
# ids that MONAI itself, not the config, reads
READ_BY_MONAI = {"imports", "bundle_root", "initialize", "run", "finalize", "val_interval"}
# what `fsmis benchmark train` reads: a list of trainings, no config of MONAI
PLANS = {"fold_training"}


def texts(value: Any) -> Iterator[str]:
    """Yield every string in a nest of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


def config_names(bundle: Path) -> list[str]:
    names = {path.stem for path in (bundle / "configs").glob("*.json")}
    return sorted(names - PLANS - {"metadata"})


def test_every_argument_of_the_network_is_a_knob_of_its_name(bundle: Path) -> None:
    arguments = read_config(bundle, "train")["network_def"]
    values = {k: v for k, v in arguments.items() if k not in ("_target_", "support_pack")}
    assert values == {name: f"@{name}" for name in values}
    accepted = inspect.signature(type(build_network(bundle))).parameters
    assert set(values) <= set(accepted)


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
    ["between_patients.json", "evaluate.json", "fit.json", "logging.conf"]
    + ["multi_gpu_train.json", "multi_gpu_inference.json", "multi_gpu_fit.json"],
)
def test_what_all_bundles_share_is_the_same_file(bundle: Path, name: str) -> None:
    own, other = ((folder / "configs" / name).read_bytes() for folder in (bundle, REFERENCE))
    assert own == other


def test_every_top_level_value_is_used_and_no_path_is_of_one_machine(bundle: Path) -> None:
    for name in config_names(bundle):
        config = read_config(bundle, name)
        merged = {**read_config(bundle, "inference" if "inference" in name else "train"), **config}
        found = [(key, text) for key, value in merged.items() for text in texts(value)]
        for key, value in config.items():
            if isinstance(value, dict | list) or "#" in key or key in READ_BY_MONAI:
                continue
            used = re.compile(rf"[@%]{re.escape(key)}(?![A-Za-z0-9_])")
            assert any(used.search(text) for owner, text in found if owner != key), (name, key)
        paths = [text for text in texts(config) if re.match(r"[/~]|[A-Za-z]:\\", text)]
        assert not paths, name


def test_both_commands_of_a_config_mean_the_same(bundle: Path) -> None:
    """`run training` and `run`; an option panel of MONAI Label asks for all, "@" runs it once."""
    for name, run_id in (
        ("train", "training"),
        ("evaluate", "evaluating"),
        ("inference", "evaluating"),
        ("fit", "fitting"),
    ):
        config = read_config(bundle, name)
        assert isinstance(config[run_id], list)
        assert config["run"] in (f"%{run_id}", [f"@{run_id}"]), name


def test_the_package_is_imported_by_the_bundle_alone(bundle: Path) -> None:
    """MONAI evaluates `$import` first: a packed bundle would take an installed package, or none."""
    for name in config_names(bundle):
        found = texts(read_config(bundle, name))
        assert not [t for t in found if re.match(r"\$\s*(import|from)\s+fsmis_components", t)], name


def test_the_same_network_on_no_device_of_its_own(bundle: Path) -> None:
    train, inference = (
        {k: v for k, v in read_config(bundle, name)["network_def"].items() if k != "support_pack"}
        for name in ("train", "inference")
    )
    assert train == inference and "device" not in str(train)
    knobs, config = network_knobs(bundle), read_config(bundle, "inference")
    assert {name: config.get(name) for name in knobs} == knobs


def test_versions_are_those_of_the_requirements(bundle: Path) -> None:
    metadata = read_config(bundle, "metadata")
    assert metadata["version"] in metadata["changelog"]
    text = (REPOSITORY / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    named = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    packages = {package: metadata[key] for package, key in named.items()}
    packages |= metadata["required_packages_version"]
    assert packages.items() <= pinned.items()
