"""The checks of a bundle: what MONAI asks of any, and what this project asks of its own."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    verify_metadata,
    verify_net_in_out,
)
from monai.bundle.properties import InferProperties, TrainProperties

import fsmis_components
from phantom import write_dataset, write_phantom

PACKAGE = "fsmis_components"
SUFFIXES = (".json", ".yaml", ".yml")
SCHEMAS = Path(__file__).resolve().parent / "schemas"
SMALL = (96, 80, 12)
NOTE = "note: "  # begins what is worth knowing and no fault
NECESSARY = ("configs/train.json", "configs/evaluate.json", "configs/inference.json")
# ids that MONAI itself, not the config, reads
READ_BY_MONAI = {"imports", "bundle_root", "initialize", "run", "finalize", "val_interval"}
# what tools/benchmark.py and tools/ablate.py read: lists of trainings, no configs of MONAI
PLANS = {"ablation", "fold_training"}


@dataclass(frozen=True)
class Bundle:
    """A bundle folder, its files read on demand."""

    root: Path

    def path(self, config: str) -> Path:
        """Return where ``config`` (such as ``train``) lies, in JSON if it is nowhere."""
        places = [self.root / "configs" / f"{config}{suffix}" for suffix in SUFFIXES]
        return next((place for place in places if place.is_file()), places[0])

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The content of ``metadata.json``."""
        return ConfigParser.load_config_file(str(self.path("metadata")))

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The content of every config by name, ``metadata`` left out."""
        paths = (p for p in sorted((self.root / "configs").glob("*")) if p.suffix in SUFFIXES)
        return {
            p.stem: ConfigParser.load_config_file(str(p)) for p in paths if p.stem != "metadata"
        }

    @property
    def is_ours(self) -> bool:
        """Whether a config names this project's package."""
        paths = (p for p in (self.root / "configs").glob("*") if p.suffix in SUFFIXES)
        return any(PACKAGE in path.read_text(errors="replace") for path in paths)

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


def check_files(bundle: Bundle) -> list[str]:
    """The files without which MONAI does not take a folder for a bundle."""
    names = ["LICENSE", "configs/metadata.json", *(NECESSARY if bundle.is_ours else ())]
    problems = [f"{name} is missing: add it" for name in names if not (bundle.root / name).exists()]
    if not any(bundle.path(name).is_file() for name in ("train", "inference")):
        problems.append("configs/ has neither train nor inference in JSON or YAML: add one")
    return problems


def check_schema(bundle: Bundle) -> list[str]:
    """metadata.json fits MONAI's schema, which is kept in tools/schemas."""
    name = str(bundle.metadata.get("schema", "")).rsplit("/", 1)[-1]
    if not name or not (SCHEMAS / name).is_file():
        kept = ", ".join(sorted(path.name for path in SCHEMAS.glob("*.json")))
        problem = f"metadata.json names the schema {name!r}, kept here is {kept}: name that one"
        return [problem if bundle.is_ours else NOTE + problem]
    verify_metadata(meta_file=str(bundle.path("metadata")), filepath=str(SCHEMAS / name))
    return []


def check_required_ids(bundle: Bundle) -> list[str]:
    """The configs have every id that MONAI's workflows require; nothing is made from them."""
    problems = []
    for name, properties in (("train", TrainProperties), ("inference", InferProperties)):
        if name not in bundle.configs:
            continue
        parser = ConfigParser(bundle.configs[name])
        wanted = [str(entry["id"]) for entry in properties.values() if entry["required"]]
        missing = [key.replace("::", "#") for key in wanted if key not in parser]
        missing += [] if "run" in bundle.configs[name] else ["run"]
        if missing:
            problems.append(
                f"{bundle.path(name).name} has no {', '.join(missing)}: MONAI requires these ids"
            )
    return problems


def check_network(bundle: Bundle) -> list[str]:
    """The network maps one image of the documented size to the documented output."""
    for factor in (1, 3):
        with _code_of(bundle):
            verify_net_in_out(
                net_id="network_def",
                meta_file=str(bundle.path("metadata")),
                config_file=_network_config(bundle),
                device="cpu",
                n=factor,
                any=32 * factor,
                bundle_root=str(bundle.root),
            )
    return []


def check_export(bundle: Bundle) -> list[str]:
    """The weights load strictly, and the network exports to TorchScript and gives an output."""
    weights = bundle.root / "models" / "model.pt"
    if not weights.exists():
        return [f"{NOTE}models/model.pt is not here: not checked"]
    with tempfile.TemporaryDirectory() as folder, _code_of(bundle):
        path = Path(folder) / "model.ts"
        torch.load(weights, map_location="cpu", weights_only=True)
        ckpt_export(
            net_id="network_def",
            filepath=str(path),
            ckpt_file=str(weights),
            meta_file=str(bundle.path("metadata")),
            config_file=_network_config(bundle),
            bundle_root=str(bundle.root),
        )
        image = bundle.metadata["network_data_format"]["inputs"]["image"]
        pred = bundle.metadata["network_data_format"]["outputs"]["pred"]
        size = [64 if isinstance(side, str) else side for side in image["spatial_shape"]]
        output = torch.jit.load(str(path))(torch.rand(1, image["num_channels"], *size))
    if output.shape[:2] != (1, pred["num_channels"]):
        return [f"the exported network gives {tuple(output.shape)}: check pred"]
    return []


def check_versions(bundle: Bundle) -> list[str]:
    """Package versions are those of requirements.txt, where the bundle lies in the repository."""
    metadata = bundle.metadata
    packages = dict(metadata.get("required_packages_version", {}))
    problems = [
        f"required_packages_version names {name}, which is not published: drop it"
        for name in packages
        if name.replace("-", "_").startswith("fsmis")
    ]
    if metadata.get("version") not in metadata.get("changelog", {}):
        problems.append(f"version {metadata.get('version')} has no changelog entry: write one")
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
    for config, run_id in (
        ("train", "training"), ("evaluate", "evaluating"), ("inference", "evaluating")
    ):  # fmt: skip
        content = bundle.configs.get(config, {})
        if not isinstance(content.get(run_id), list):
            problems.append(f"{config}.json has no list {run_id}: `run {run_id}` would fail")
        # MONAI Label's option panel may ask for the whole config, which "@" runs once and "%" twice
        if content.get("run") not in (f"%{run_id}", [f"@{run_id}"]):
            problems.append(
                f'{config}.json: "run" is to be "%{run_id}" or ["@{run_id}"], so that both '
                "commands agree"
            )
    return problems


def check_network_def(bundle: Bundle) -> list[str]:
    """train.json and inference.json define the same network, and no device."""
    # the support pack is the state of a trained network: only inference has one
    train, inference = (
        {k: v for k, v in bundle.configs[name]["network_def"].items() if k != "support_pack"}
        for name in ("train", "inference")
    )
    problems = []
    if train != inference:
        problems.append("network_def differs between train.json and inference.json: align them")
    if "device" in json.dumps([train, inference]):
        problems.append("network_def names a device: leave that to network")
    return problems


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
    for name in sorted(bundle.configs.keys() - PLANS):
        base = "inference" if "inference" in name else "train"
        merged = bundle.merged(*dict.fromkeys([base, name]))
        texts = [(key, text) for key, value in merged.items() for text in _texts(value)]
        for key, value in bundle.configs[name].items():
            is_knob = not isinstance(value, dict | list) and re.match(r"[A-Za-z][\w]*$", key)
            if not is_knob or key in READ_BY_MONAI:
                continue
            used = rf"[@%]{re.escape(key)}(?![A-Za-z0-9_])"
            if not any(re.search(used, text) for owner, text in texts if owner != key):
                problems.append(f"{name}.json: nothing uses {key}: use it or drop it")
        problems += [
            f"{name}.json: {text} is a path of one machine: make it relative"
            for text in _texts(bundle.configs[name])
            if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:\\", text)
        ]
    return problems


def check_support_pack(bundle: Bundle) -> list[str]:
    """The default pack fits the shipped weights, and names what metadata.json says."""
    from fsmis_components.support import SupportPack  # bundles of others need no such package
    from fsmis_components.support.pack_trial import try_pack

    path = bundle.root / "models" / "support_pack.safetensors"
    if not path.is_file():
        return ["models/support_pack.safetensors is missing: inference has no support by itself"]
    problems = []
    with _code_of(bundle):
        parser = ConfigParser()
        parser.read_config(str(bundle.path("inference")))
        parser.update({"bundle_root": str(bundle.root)})
        network = parser.get_parsed_content("network_def")
        weights = bundle.root / "models" / "model.pt"
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        pack = SupportPack.load(path)
        pack.check_fits(network)
        try_pack(pack, network)
        names = ["background", *(structure.name for structure in pack.structures)]
        pred = bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        if [pred.get(str(channel)) for channel in range(len(names))] != names:
            problems.append(f"channel_def of pred is not {names}, as the default pack has it")
        values = [structure.value for structure in pack.structures]
        if values != list(range(1, len(names))):
            problems.append(f"label values of the default pack are {values}: number them from 1")
    return problems


def check_workflow(bundle: Bundle, kind: str, overlay: str | None = None) -> list[str]:
    """A workflow has every property that MONAI's tools ask for."""
    names = [kind] if overlay is None else [kind, overlay]
    with tempfile.TemporaryDirectory() as folder:
        overrides: dict[str, Any] = {
            "output_dir": f"{folder}/output",
            "epochs": 1,
            "episodes_per_epoch": 2,
            "num_workers": 0,
        }
        if kind == "train":
            overrides["dataset_dir"] = str(write_dataset(Path(folder) / "data", count=6))
        else:
            places = write_phantom(folder, seed=1, shape=SMALL)
            overrides["dataset_dir"] = str(places["query"])
            overrides["support_dir"] = str(places["support"])
        known = bundle.merged(*names)
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=[str(bundle.path(name)) for name in names],
            meta_file=str(bundle.path("metadata")),
            logging_file=False,
            bundle_root=str(bundle.root),
            **{key: value for key, value in overrides.items() if key in known},
        )
        workflow.initialize()
        missing = workflow.check_properties()
        workflow.finalize()
    return [f"the property {name} is missing or has another id" for name in missing or []]


# title, question, whether it runs what the configs say, whether it is asked of our bundles only
CHECKS: tuple[tuple[str, Callable[[Bundle], list[str]], bool, bool], ...] = (
    ("files", check_files, False, False),
    ("metadata schema", check_schema, False, False),
    ("required ids", check_required_ids, False, False),
    ("version and packages", check_versions, False, True),
    ("own run ids", check_own_run_ids, False, True),
    ("network_def", check_network_def, False, True),
    ("package", check_package, False, True),
    ("knobs", check_knobs, False, True),
    ("own copy", check_own_copy, True, True),
    ("network in and out", check_network, True, False),
    ("TorchScript export", check_export, True, False),
    ("support pack", check_support_pack, True, True),
    ("train properties", partial(check_workflow, kind="train"), True, True),
    ("evaluate properties", partial(check_workflow, kind="train", overlay="evaluate"), True, True),
    ("inference properties", partial(check_workflow, kind="inference"), True, True),
)


def verify(root: Path, say: Callable[[str], object] = print, static: bool = False) -> bool:
    """Run every check on the bundle at ``root``, say each result, return whether all passed."""
    bundle = Bundle(root.resolve())
    passed = True
    for title, ask, runs, ours in CHECKS:
        if (ours and not bundle.is_ours) or (runs and static):
            continue
        start = time.monotonic()
        problems = asked(ask, bundle)
        seconds = time.monotonic() - start
        passed = passed and all(problem.startswith(NOTE) for problem in problems)
        for problem in problems or ["ok" + (f" ({seconds:.0f} s)" if seconds >= 1 else "")]:
            say(f"{title:>22}: {problem}")
    return passed


def asked(check: Callable[[Bundle], list[str]], bundle: Bundle) -> list[str]:
    """Return the problems that ``check`` finds, or the first cause of what it raises in one line.

    What MONAI prints meanwhile is dropped.
    """
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            return check(bundle)
        except (Exception, SystemExit) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            kind = "" if isinstance(cause, SystemExit) else f"{type(cause).__name__}: "
            return [f"{kind}{' '.join(str(cause).split())}"[:400]]


def _network_config(bundle: Bundle) -> str:
    """Return the config with the network, inference's if it can be."""
    inference = "network_def" in bundle.configs.get("inference", {})
    return str(bundle.path("inference" if inference else "train"))


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a nest of lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


@contextmanager
def _code_of(bundle: Bundle) -> Iterator[None]:
    """Let Python that a bundle carries be found, as MONAI's run command does."""
    sys.path.insert(0, str(bundle.root))
    try:
        yield
    finally:
        sys.path.remove(str(bundle.root))
