from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import init_bundle
from toy_bundle import edit, toy_configs, toy_metadata

import bundle_advice
import bundle_files
import bundle_house
import bundle_runs
from bundle_checks import CHECKS, verify
from bundle_files import Bundle
from verify_bundle import verify_archive

CHECKERS = (bundle_files, bundle_advice, bundle_house)


def _ask(check: str, bundle: Bundle) -> list[str]:
    [module] = [module for module in CHECKERS if hasattr(module, check)]
    return getattr(module, check)(bundle)


def test_a_good_bundle_of_others_passes_every_check_that_is_for_it(toy: Path):
    lines: list[str] = []
    assert verify(toy, lines.append), lines
    titles = [check.title for check in CHECKS if not check.ours]
    assert [line.strip().partition(":")[0] for line in lines] == titles
    assert all(": ok" in line for line in lines)
    lines.clear()
    assert verify(toy, lines.append, static=True)
    assert len(lines) == len([check for check in CHECKS if not check.ours and not check.runs])


def test_a_bundle_that_names_our_package_is_asked_all(toy: Path):
    edit(toy, "train", lambda c: c.update(note={"_target_": "fsmis_components.support.x"}))
    lines: list[str] = []
    verify(toy, lines.append, static=True)
    titles = [line.strip().partition(":")[0] for line in lines]
    assert {check.title for check in CHECKS if not check.runs} == set(titles)


def _plain(folder: Path) -> Path:
    """Write what MONAI asks of a bundle for inference, in YAML, and nothing else."""
    root = folder / "plain"
    for name in ("configs", "models"):
        (root / name).mkdir(parents=True)
    (root / "LICENSE").write_text("text\n")
    names = ("imports", "bundle_root", "dataset_dir", "device", "network_def", "dataset", "inferer")
    inference = toy_configs()["inference"]
    config = {name: inference[name] for name in (*names, "evaluator")}
    config["run"] = ["$@evaluator.run()"]
    (root / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    metadata = {k: v for k, v in toy_metadata().items() if k != "changelog"}
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(torch.nn.Conv2d(1, 2, 3, padding=1).state_dict(), root / "models" / "model.pt")
    return root


def test_a_plain_bundle_passes_with_advice_folder_and_archive(tmp_path: Path):
    root = _plain(tmp_path)
    archive = Path(shutil.make_archive(str(tmp_path / "plain"), "zip", tmp_path, "plain"))
    lines: list[str] = []
    assert verify(root, lines.append), lines
    advice = [line.partition("note: ")[2] for line in lines if "ok" not in line]
    assert advice == [
        "docs/README.md is missing: add it",
        "docs/data_license.txt is missing: add it",
        "configs/logging.conf is missing: add it",
        "version 0.1.0 has no changelog entry: write one",
    ]
    packed: list[str] = []
    assert verify_archive(archive, packed.append, static=True), packed
    assert packed[0].strip() == "archive: ok" and len(packed) > 5


def test_what_init_bundle_makes_is_told_what_it_lacks(tmp_path: Path):
    init_bundle(str(tmp_path / "made"))
    lines: list[str] = []
    assert not verify(tmp_path / "made", lines.append)
    said = " ".join(lines)
    for words in (
        "models/model.pt is missing",
        "the first of inputs is None, tools expect image",
        "names no schema",
        "(`monai.bundle run evaluating` works): add it",
        "inference.json has no bundle_root: MONAI's workflows require",
        "not checked without network_def",
    ):
        assert words in said


def test_a_bad_bundle_gets_one_line_per_problem(toy: Path):
    (toy / "LICENSE").unlink()
    lines: list[str] = []
    assert not verify(toy, lines.append)
    assert [line.strip() for line in lines if "ok" not in line] == [
        "files: LICENSE is missing: add it"
    ]


def test_a_config_that_is_not_json_is_said(toy: Path):
    (toy / "configs/train.json").write_text("{")
    lines: list[str] = []
    assert not verify(toy, lines.append)
    assert any("not JSON" in line for line in lines)


def test_a_config_of_another_form_is_said(toy: Path):
    (toy / "configs/metadata.json").write_text("[]")
    (toy / "configs/extra.yaml").write_text("a: [")
    lines: list[str] = []
    assert not verify(toy, lines.append, static=True)
    said = " ".join(lines)
    assert "metadata.json holds a list" in said and "not YAML" in said


def test_the_weights_may_come_later(toy: Path):
    (toy / "models/model.pt").unlink()
    assert "models/model.pt is missing" in bundle_files.check_files(Bundle(toy))[0]
    (toy / "large_files.yml").write_text(
        f"large_files:\n- path: models/model.pt\n  url: x\n  hash_val: {'a' * 64}\n"
    )
    assert not bundle_files.check_files(Bundle(toy))
    [said] = bundle_runs.check_export(Bundle(toy))
    assert said == "note: models/model.pt is not here: not checked"


def test_files(toy: Path):
    (toy / "models/other.pt").write_bytes(b"")
    (toy / "scripts").mkdir()
    (toy / "link").symlink_to(toy / "LICENSE")
    (toy / "large_files.yml").write_text('large_files:\n  - path: "a"\n    hash_val: "12"\n')
    with (toy / "large.bin").open("wb") as file:
        file.truncate(26_000_000)
    bundle = Bundle(toy)
    asked = (bundle_files.check_files, bundle_advice.check_advice, bundle_house.check_own_files)
    said = " ".join(problem for check in asked for problem in check(bundle))
    for word in ("other.pt", "scripts/", "is a link", "hash_type", "over 25 MB"):
        assert word in said


@pytest.mark.parametrize(
    ("check", "config", "change", "said"),
    [
        ("check_advice", "metadata", lambda c: c.update(version="0.2.0"), "no changelog entry"),
        (
            "check_versions",
            "metadata",
            lambda c: c["required_packages_version"].update({"fsmis-components": "1"}),
            "not published",
        ),
        (
            "check_metadata",
            "metadata",
            lambda c: c.update(optional_packages_version={}),
            "overwrites",
        ),
        (
            "check_metadata",
            "metadata",
            lambda c: c["network_data_format"].update(inputs={"support_image": 1, "image": 1}),
            "put it first",
        ),
        (
            "check_advice",
            "metadata",
            lambda c: c["network_data_format"]["outputs"]["pred"]["channel_def"].pop("1"),
            "does not name every channel",
        ),
        ("check_own_run_ids", "train", lambda c: c.pop("training"), "no list training"),
        ("check_own_run_ids", "train", lambda c: c.update(run=["$1"]), '"%training"'),
        ("check_own_run_ids", "evaluate", lambda c: c.pop("evaluating"), "no list evaluating"),
        (
            "check_network_def",
            "train",
            lambda c: c["network_def"].update(out_channels=3),
            "differs",
        ),
        (
            "check_network_def",
            "train",
            lambda c: c["network_def"].update(device="cpu"),
            "names a device",
        ),
        ("check_run_ids", "train", lambda c: c.pop("run"), "train.json has no id run"),
        (
            "check_package",
            "train",
            lambda c: c.update(imports=["$import fsmis_components.data.weights"]),
            "use @package",
        ),
        ("check_knobs", "train", lambda c: c.update(learning_rate=1), "nothing uses learning_rate"),
        ("check_knobs", "evaluate", lambda c: c.update(epoch=1), "nothing uses epoch:"),
        ("check_knobs", "train", lambda c: c.update(dataset_dir="/data/x"), "one machine"),
        (
            "check_metrics",
            "evaluate",
            lambda c: c["validate#handlers"][0].update(metrics=["val_acc"]),
            "val_acc",
        ),
    ],
)
def test_each_fault_is_found(toy: Path, check: str, config: str, change: Any, said: str):
    bundle = Bundle(toy)
    assert not _ask(check, bundle)
    assert said in " ".join(_ask(check, edit(toy, config, change)))


def test_a_plan_of_trainings_has_no_knobs(toy: Path):
    plan = {"reference": "full", "variants": {"full": {}}}
    (toy / "configs" / "ablation.json").write_text(json.dumps(plan))
    assert not bundle_house.check_knobs(Bundle(toy))
    (toy / "configs" / "overlay.json").write_text(json.dumps(plan))
    assert "nothing uses reference" in " ".join(bundle_house.check_knobs(Bundle(toy)))


def test_the_old_name_of_the_required_packages_is_advice(toy: Path):
    def rename(content: dict[str, Any]) -> None:
        content["optional_packages_version"] = content.pop("required_packages_version")

    [said] = bundle_files.check_metadata(edit(toy, "metadata", rename))
    assert said.startswith("note: optional_packages_version is now called")


def test_versions_follow_requirements(toy: Path):
    (toy.parent.parent / "requirements.txt").write_text("monai==1.6.1\ntorch==2.13.0\n")
    said = " ".join(bundle_house.check_versions(Bundle(toy)))
    assert "monai x in metadata.json, 1.6.1 in requirements.txt" in said
    assert "nibabel 5.4.2 in metadata.json, None" in said
