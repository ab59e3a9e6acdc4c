"""Check what a bundle's files say, without running them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

NECESSARY = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
)
LARGEST_FILE = 25e6  # bytes; the model zoo's limit for a committed file
# ids that MONAI itself, not the config, reads
READ_BY_MONAI = {"imports", "bundle_root", "initialize", "run", "finalize", "val_interval"}
# what tools/benchmark.py reads: lists of trainings, no configs of MONAI
PLANS = {"ablation", "fold_training"}
_HASH = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


@dataclass(frozen=True)
class Bundle:
    """A bundle folder, its files read on demand."""

    root: Path

    def path(self, config: str) -> Path:
        """Return where ``config`` (such as ``train``) lies."""
        return self.root / "configs" / f"{config}.json"

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The content of ``metadata.json``."""
        return json.loads(self.path("metadata").read_text())

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The content of every config by name, ``metadata`` left out."""
        paths = sorted((self.root / "configs").glob("*.json"))
        return {p.stem: json.loads(p.read_text()) for p in paths if p.stem != "metadata"}

    def merged(self, *names: str) -> dict[str, Any]:
        """Return configs laid over each other: the later one wins per top-level key."""
        result: dict[str, Any] = {}
        for name in names:
            for key, value in self.configs[name].items():
                if key.startswith("+") and isinstance(value, dict):
                    result[key[1:]] = {**result.get(key[1:], {}), **value}
                else:
                    result[key.lstrip("+")] = value
        return result

    def base_of(self, config: str) -> str:
        """Return the whole config that ``config`` overlays, or its own name."""
        if config in ("train", "inference"):
            return config
        return "inference" if "inference" in config else "train"


def check_files(bundle: Bundle) -> list[str]:
    """The files that MONAI, the model zoo and this project ask for."""
    problems = [
        f"{name} is missing: add it" + (" by training" if name.endswith(".pt") else "")
        for name in NECESSARY
        if not (bundle.root / name).is_file()
    ]
    for path in sorted(bundle.root.rglob("*")):
        name = path.relative_to(bundle.root)
        if path.is_symlink():
            problems.append(f"{name} is a link, which does not survive packing: copy the file")
        elif path.is_file() and path.stat().st_size > LARGEST_FILE:
            problems.append(f"{name} is over 25 MB: name it in large_files.yml instead")
    others = {p.name for p in bundle.root.glob("models/*.pt")} - {"model.pt"}
    if others:
        problems.append(
            f"models/ offers {sorted(others)} beside model.pt: give them another suffix"
        )
    if list(bundle.root.glob("scripts")):
        problems.append("scripts/ collides between bundles: move its code to fsmis_components")
    return problems + _large_file_problems(bundle)


def _large_file_problems(bundle: Bundle) -> list[str]:
    path = bundle.root / "large_files.yml"
    if not path.exists():
        return []
    entries = re.split(r"^\s*- ", path.read_text(), flags=re.MULTILINE)[1:]
    problems = []
    for entry in entries:
        fields = dict(re.findall(r"^\s*(\w+):\s*[\"']?([^\"'\n]+)", entry, flags=re.MULTILINE))
        kind, value = fields.get("hash_type", ""), fields.get("hash_val", "")
        if len(value) != _HASH.get(kind, -1):
            problems.append(f"large_files.yml: {fields.get('path')} needs hash_type and hash_val")
    return problems


def check_version(bundle: Bundle) -> list[str]:
    """The version is in the changelog, and package versions are those of requirements.txt."""
    metadata = bundle.metadata
    problems = []
    if metadata.get("version") not in metadata.get("changelog", {}):
        problems.append(f"version {metadata.get('version')} has no changelog entry: write one")
    if "optional_packages_version" in metadata:
        problems.append("optional_packages_version overwrites required_packages_version: drop it")
    packages = dict(metadata.get("required_packages_version", {}))
    problems += [
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


def check_data_format(bundle: Bundle) -> list[str]:
    """The first input is ``image``, the first output ``pred``, with a name per channel."""
    data_format = bundle.metadata.get("network_data_format", {})
    problems = []
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        first = next(iter(data_format.get(side, {})), None)
        if first != name:
            problems.append(f"the first of {side} is {first}, tools expect {name}: put it first")
    pred = data_format.get("outputs", {}).get("pred", {})
    if sorted(pred.get("channel_def", {})) != sorted(map(str, range(pred.get("num_channels", 0)))):
        problems.append("channel_def of pred does not name every channel from 0: complete it")
    return problems


def check_run_ids(bundle: Bundle) -> list[str]:
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
    if content.get("run") != f"%{run_id}":
        problems.append(f'{config}.json: "run" is to be "%{run_id}", so that both commands agree')
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
