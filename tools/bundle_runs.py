"""Check what a bundle does: its network, its export and its workflows, on made-up data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

from bundle_files import Bundle
from phantom import write_dataset, write_phantom

SCHEMAS = Path(__file__).resolve().parent / "schemas"
SMALL = (96, 80, 12)


def check_schema(bundle: Bundle) -> list[str]:
    """metadata.json fits MONAI's schema, which is kept in tools/schemas."""
    name = str(bundle.metadata.get("schema", "")).rsplit("/", 1)[-1]
    if not (SCHEMAS / name).is_file():
        kept = sorted(path.name for path in SCHEMAS.glob("*.json"))
        return [f"metadata.json names the schema {name!r}, kept here is {kept}: name that one"]
    with _as_problem() as problems:
        verify_metadata(meta_file=str(bundle.path("metadata")), filepath=str(SCHEMAS / name))
    return problems


def check_network(bundle: Bundle) -> list[str]:
    """The network maps one image of the documented size to the documented output."""
    problems: list[str] = []
    for factor in (1, 3):
        with _as_problem(f"n = {factor}: ") as found:
            verify_net_in_out(
                net_id="network_def",
                meta_file=str(bundle.path("metadata")),
                config_file=str(bundle.path("inference")),
                device="cpu",
                n=factor,
                any=32 * factor,
                bundle_root=str(bundle.root),
            )
        problems += found
    return problems


def check_export(bundle: Bundle) -> list[str]:
    """The weights load strictly, and the network exports to TorchScript and gives the same."""
    with tempfile.TemporaryDirectory() as folder, _as_problem() as problems:
        path = Path(folder) / "model.ts"
        torch.load(bundle.root / "models" / "model.pt", map_location="cpu", weights_only=True)
        ckpt_export(
            net_id="network_def",
            filepath=str(path),
            ckpt_file=str(bundle.root / "models" / "model.pt"),
            meta_file=str(bundle.path("metadata")),
            config_file=str(bundle.path("inference")),
            bundle_root=str(bundle.root),
        )
        image = bundle.metadata["network_data_format"]["inputs"]["image"]
        pred = bundle.metadata["network_data_format"]["outputs"]["pred"]
        output = torch.jit.load(str(path))(torch.rand(1, image["num_channels"], 64, 64))
        if output.shape[:2] != (1, pred["num_channels"]):
            problems.append(f"the exported network gives {tuple(output.shape)}: check pred")
    shipped = bundle.root / "models" / "model.ts"
    if shipped.exists():
        with _as_problem("models/model.ts: ") as found:
            torch.jit.load(str(shipped))
        problems += found
    return problems


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
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        kind = "" if isinstance(cause, SystemExit) else f"{type(cause).__name__}: "
        problems.append(f"{prefix}{kind}{' '.join(lines[:2])}"[:400])
