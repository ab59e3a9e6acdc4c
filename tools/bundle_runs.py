"""Check what a bundle does: its network, its export and its workflows, on made-up data."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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

from bundle_files import NOTE, Bundle
from phantom import write_dataset, write_phantom

SCHEMAS = Path(__file__).resolve().parent / "schemas"
SMALL = (96, 80, 12)
NO_NETWORK = f"{NOTE}not checked without network_def and network_data_format"


def check_schema(bundle: Bundle) -> list[str]:
    """metadata.json fits MONAI's schema, which is kept in tools/schemas."""
    name = str(bundle.metadata.get("schema", "")).rsplit("/", 1)[-1]
    if not name:
        return ["metadata.json names no schema: MONAI's verify_metadata would fail"]
    if not (SCHEMAS / name).is_file():
        kept = sorted(path.name for path in SCHEMAS.glob("*.json"))
        problem = f"metadata.json names the schema {name!r}, kept here is {kept}: name that one"
        return [problem if bundle.is_ours else NOTE + problem]
    if find_spec("jsonschema") is None:  # MONAI would fail with a TypeError
        return ["the check needs the package jsonschema: install it by 'pip install jsonschema'"]
    with _as_problem() as problems:
        verify_metadata(meta_file=str(bundle.path("metadata")), filepath=str(SCHEMAS / name))
    return problems


def check_required_ids(bundle: Bundle) -> list[str]:
    """The configs have every id that MONAI's workflows require; nothing is made from them."""
    problems = []
    for name, properties in (("train", TrainProperties), ("inference", InferProperties)):
        if name not in bundle.configs:
            continue
        with _as_problem(f"{bundle.path(name).name}: ") as found:
            parser = ConfigParser()
            parser.read_config(str(bundle.path(name)))
            missing = [
                str(entry["id"])
                for entry in properties.values()
                if entry["required"] and entry["id"] not in parser
            ]
            if missing:
                listing = ", ".join(missing).replace("::", "#")  # the form in which configs have it
                found.append(
                    f"{bundle.path(name).name} has no {listing}: MONAI's workflows "
                    "require these ids"
                )
        problems += found
    return problems


def check_network(bundle: Bundle) -> list[str]:
    """The network maps one image of the documented size to the documented output."""
    config = _network_config(bundle)
    if config is None:
        return [NO_NETWORK]
    problems: list[str] = []
    for factor in (1, 3):
        with _as_problem(f"n = {factor}: ") as found, _code_of(bundle):
            verify_net_in_out(
                net_id="network_def",
                meta_file=str(bundle.path("metadata")),
                config_file=config,
                device="cpu",
                n=factor,
                any=32 * factor,
                bundle_root=str(bundle.root),
            )
        problems += found
    return problems


def check_export(bundle: Bundle) -> list[str]:
    """The weights load strictly, and the network exports to TorchScript and gives an output."""
    shipped = bundle.root / "models" / "model.ts"
    weights = bundle.root / "models" / "model.pt"
    if shipped.exists():
        with _as_problem("models/model.ts: ") as problems:
            torch.jit.load(str(shipped))
        if problems or not weights.exists():
            return problems
    config = _network_config(bundle)
    if config is None:
        return [NO_NETWORK]
    if not weights.exists():
        return [f"{NOTE}models/model.pt is not here: not checked"]
    with tempfile.TemporaryDirectory() as folder, _as_problem() as problems, _code_of(bundle):
        path = Path(folder) / "model.ts"
        torch.load(weights, map_location="cpu", weights_only=True)
        ckpt_export(
            net_id="network_def",
            filepath=str(path),
            ckpt_file=str(weights),
            meta_file=str(bundle.path("metadata")),
            config_file=config,
            bundle_root=str(bundle.root),
        )
        image = bundle.metadata["network_data_format"]["inputs"]["image"]
        pred = bundle.metadata["network_data_format"]["outputs"]["pred"]
        size = [64 if isinstance(side, str) else side for side in image["spatial_shape"]]
        output = torch.jit.load(str(path))(torch.rand(1, image["num_channels"], *size))
        if output.shape[:2] != (1, pred["num_channels"]):
            problems.append(f"the exported network gives {tuple(output.shape)}: check pred")
    return problems


def check_support_pack(bundle: Bundle) -> list[str]:
    """The default pack fits the shipped weights, and names what metadata.json says."""
    from fsmis_components.support import SupportPack  # bundles of others need no such package
    from fsmis_components.support.pack_trial import try_pack

    path = bundle.root / "models" / "support_pack.safetensors"
    if not path.is_file():
        return ["models/support_pack.safetensors is missing: inference has no support by itself"]
    with _as_problem() as problems, _code_of(bundle):
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


def _network_config(bundle: Bundle) -> str | None:
    """Return the config with the network, inference's if it can be; None if nothing is to check."""
    data_format = bundle.metadata.get("network_data_format", {})
    if not ("image" in data_format.get("inputs", {}) and "pred" in data_format.get("outputs", {})):
        return None
    for name in ("inference", "train"):
        if "network_def" in bundle.configs.get(name, {}):
            return str(bundle.path(name))
    return None


@contextmanager
def _code_of(bundle: Bundle) -> Iterator[None]:
    """Let Python that a bundle carries be found, as MONAI's run command does."""
    sys.path.insert(0, str(bundle.root))
    try:
        yield
    finally:
        sys.path.remove(str(bundle.root))


def check_training(bundle: Bundle) -> list[str]:
    """The training workflow has every property that MONAI's tools ask for."""
    return _check_workflow(bundle, "train", ["train"])


def check_evaluation(bundle: Bundle) -> list[str]:
    """So does the evaluation, which is laid over the training."""
    return _check_workflow(bundle, "train", ["train", "evaluate"])


def check_inference(bundle: Bundle) -> list[str]:
    """So does the inference."""
    return _check_workflow(bundle, "inference", ["inference"])


def _check_workflow(bundle: Bundle, kind: str, names: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, _as_problem() as problems:
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
        problems += [f"the property {name} is missing or has another id" for name in missing or []]
        workflow.finalize()
    return problems


@contextmanager
def _as_problem(prefix: str = "") -> Iterator[list[str]]:
    """Yield a list of problems and add what the body raises: the first cause, in one line."""
    problems: list[str] = []
    try:
        yield problems
    except (Exception, SystemExit) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [re.sub(r"\s+", " ", line) for line in str(cause).splitlines() if line.strip()]
        kind = "" if isinstance(cause, SystemExit) else f"{type(cause).__name__}: "
        problems.append(f"{prefix}{kind}{' '.join(lines[:2])}"[:400])
