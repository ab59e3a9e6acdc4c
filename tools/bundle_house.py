"""Check what this project asks of its own bundles, without running them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsmis_components
from bundle_files import PACKAGE, Bundle

NECESSARY = ("configs/train.json", "configs/evaluate.json", "configs/inference.json")
# ids that MONAI itself, not the config, reads
READ_BY_MONAI = {"imports", "bundle_root", "initialize", "run", "finalize", "val_interval"}
# what tools/benchmark.py reads: lists of trainings, no configs of MONAI
PLANS = {"ablation", "fold_training"}


def check_own_files(bundle: Bundle) -> list[str]:
    """Configs are JSON, as ``monai.bundle.load`` finds no other, and downloads have a hash."""
    problems = [
        f"{name} is missing: add it" for name in NECESSARY if not (bundle.root / name).is_file()
    ]
    problems += [
        f"large_files.yml: {entry.get('path')} needs hash_type and hash_val"
        for entry in bundle.large_files()
        if not (entry.get("hash_type") and entry.get("hash_val"))
    ]
    return problems


def check_versions(bundle: Bundle) -> list[str]:
    """Package versions are those of requirements.txt, where the bundle lies in the repository."""
    metadata = bundle.metadata
    packages = dict(metadata.get("required_packages_version", {}))
    problems = [
        f"required_packages_version names {name}, which is not published: drop it"
        for name in packages
        if name.replace("-", "_").startswith("fsmis")
    ]
    for key, name in (("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy")):
        packages[name] = metadata.get(f"{key}_version")
    requirements = bundle.root.resolve().parent.parent / "requirements.txt"
    if requirements.exists():
        pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", requirements.read_text(), re.MULTILINE))
        problems += [
            f"{name} {version} in metadata.json, {pinned.get(name)} in requirements.txt: align them"
            for name, version in packages.items()
            if pinned.get(name) != version and not name.startswith("fsmis")
        ]
    return problems


def check_own_run_ids(bundle: Bundle) -> list[str]:
    """``run training`` and ``run`` mean the same, and so for ``evaluating``."""
    problems = []
    for config, run_id in (("train", "training"), ("evaluate", "evaluating")):
        problems += _run_id_problems(bundle, config, run_id)
    return problems + _run_id_problems(bundle, "inference", "evaluating")


def _run_id_problems(bundle: Bundle, config: str, run_id: str) -> list[str]:
    content = bundle.configs.get(config, {})
    problems = []
    if not isinstance(content.get(run_id), list):
        problems.append(f"{config}.json has no list {run_id}: `run {run_id}` would fail")
    # MONAI Label's option panel may ask for the whole config, which "@" runs once and "%" twice
    if content.get("run") not in (f"%{run_id}", [f"@{run_id}"]):
        problems.append(
            f'{config}.json: "run" is to be "%{run_id}" or ["@{run_id}"], so that both commands '
            "agree"
        )
    return problems


def check_network_def(bundle: Bundle) -> list[str]:
    """train.json and inference.json define the same network, and no device."""
    train, inference = (bundle.configs[name].get("network_def") for name in ("train", "inference"))
    problems = []
    # the support pack is the state of a trained network: only inference has one
    if _without(train, "support_pack") != _without(inference, "support_pack"):
        problems.append("network_def differs between train.json and inference.json: align them")
    if "device" in json.dumps([train, inference]):
        problems.append("network_def names a device: leave that to network")
    return problems


def _without(definition: Any, key: str) -> Any:
    if not isinstance(definition, dict):
        return definition
    return {k: v for k, v in definition.items() if k != key}


def check_package(bundle: Bundle) -> list[str]:
    """No config imports the package before the bundle's own copy can be found.

    MONAI evaluates every ``$import`` before anything else of a config, so that a packed bundle that
    is run from elsewhere would take an installed package, or none.
    """
    return [
        f"{name}.json imports the package by {text!r}: use @package in its place"
        for name, content in bundle.configs.items()
        for text in _texts(content)
        if re.match(r"\$\s*(import|from)\s+fsmis_components", text)
    ]


def check_own_copy(bundle: Bundle) -> list[str]:
    """The checks that run a packed bundle do so with its own copy of the package."""
    imported = Path(fsmis_components.__file__).resolve().parent
    if (bundle.root / PACKAGE).is_dir() and imported != (bundle.root / PACKAGE).resolve():
        return [f"the checks use the package in {imported}, not the bundle's own copy"]
    return []


def check_knobs(bundle: Bundle) -> list[str]:
    """Every top-level value is used, and no path of a machine is written into a config."""
    problems = []
    for name in bundle.configs:
        base = bundle.base_of(name)
        merged = bundle.merged(base, name) if base != name else bundle.merged(name)
        texts = [(key, text) for key, value in merged.items() for text in _texts(value)]
        for key, value in bundle.configs[name].items():
            is_knob = not isinstance(value, dict | list) and not key.startswith(("_", "+"))
            read_elsewhere = key in READ_BY_MONAI or name in PLANS
            if not is_knob or read_elsewhere or "#" in key or "::" in key:
                continue
            if not any(_refers(text, key) for owner, text in texts if owner != key):
                problems.append(f"{name}.json: nothing uses {key}: use it or drop it")
        problems += [
            f"{name}.json: {text} is a path of one machine: make it relative"
            for value in bundle.configs[name].values()
            for text in _texts(value)
            if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:\\", text)
        ]
    return problems


def _refers(text: str, key: str) -> bool:
    return re.search(rf"[@%]{re.escape(key)}(?![A-Za-z0-9_])", text) is not None


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a nest of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def check_metrics(bundle: Bundle) -> list[str]:
    """Metrics that evaluate.json saves by name exist in the evaluator."""
    merged = bundle.merged("train", "evaluate")
    validate = merged.get("validate", {})
    known: set[str] = set()
    for holder in (validate, merged):
        for key in ("key_metric", "additional_metrics"):
            metrics = holder.get(key, holder.get(f"validate#{key}"))
            known |= set(metrics) if isinstance(metrics, dict) else set()
    return [
        f"evaluate.json saves the metric {name}, not one of {sorted(known)}: rename it"
        for saver in _savers(bundle.configs["evaluate"])
        for name in _names(saver.get("metrics"))
        if name not in known
    ]


def _savers(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if str(value.get("_target_", "")).endswith("MetricsSaver"):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _savers(item)


def _names(metrics: Any) -> list[str]:
    if isinstance(metrics, str):
        metrics = [metrics]
    return [name for name in metrics or [] if name != "*" and not name.startswith(("@", "$", "%"))]
