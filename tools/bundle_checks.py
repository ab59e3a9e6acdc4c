"""The checks of a bundle: MONAI's own commands, and that its parts fit each other and work."""

from __future__ import annotations

import contextlib
import io
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
    verify_metadata,
    verify_net_in_out,
)

import fsmis_components
from fsmis_components.support import SupportPack
from fsmis_components.support.source import try_pack
from phantom import write_dataset, write_phantom

PACKAGE = "fsmis_components"
SCHEMAS = Path(__file__).resolve().parent / "schemas"
SMALL = (96, 80, 12)
NECESSARY = (
    "LICENSE",
    *(f"configs/{name}.json" for name in ("metadata", "train", "evaluate", "inference")),
)


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
        return ConfigParser.load_config_file(str(self.path("metadata")))

    @property
    def is_ours(self) -> bool:
        """Whether a config names this project's package."""
        return any(PACKAGE in path.read_text() for path in (self.root / "configs").glob("*.json"))


def check_files(bundle: Bundle) -> list[str]:
    """The files without which neither MONAI nor our pages take a folder for a bundle."""
    return [f"{name} is missing: add it" for name in NECESSARY if not (bundle.root / name).exists()]


def check_published(bundle: Bundle) -> list[str]:
    """What MONAI's model zoo asks of a bundle beside files and schema, and its reader needs."""
    metadata = bundle.metadata
    asked_for = ("name", "task", "description", "authors", "copyright", "data_source")
    problems = [
        f"metadata.json: {key} is empty: fill it" for key in asked_for if not metadata.get(key)
    ]
    if metadata.get("version") not in metadata.get("changelog", {}):
        problems.append(
            "metadata.json: changelog does not name the version: say what changed in it"
        )
    if not metadata.get("required_packages_version"):
        problems.append("metadata.json: required_packages_version is empty: name what is needed")
    for name in ("docs/README.md", "docs/data_license.txt"):
        path = bundle.root / name
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            problems.append(f"{name} is missing or empty: write it")
    for path in sorted((bundle.root / "models").glob("*.ts")):
        problems.append(
            f"models/{path.name}: TorchScript is made from model.pt on demand: remove it"
        )
    return problems


def check_schema(bundle: Bundle) -> list[str]:
    """metadata.json fits MONAI's schema, which is kept in tools/schemas."""
    name = str(bundle.metadata.get("schema", "")).rsplit("/", 1)[-1]
    if not name or not (SCHEMAS / name).is_file():
        kept = ", ".join(sorted(path.name for path in SCHEMAS.glob("*.json")))
        return [f"metadata.json names the schema {name!r}, kept here is {kept}: name that one"]
    verify_metadata(meta_file=str(bundle.path("metadata")), filepath=str(SCHEMAS / name))
    return []


def check_network(bundle: Bundle) -> list[str]:
    """The network maps one image of the documented size to the documented output."""
    for factor in (1, 3):
        with _code_of(bundle):
            verify_net_in_out(
                net_id="network_def",
                meta_file=str(bundle.path("metadata")),
                config_file=str(bundle.path("inference")),
                device="cpu",
                n=factor,
                any=32 * factor,
                bundle_root=str(bundle.root),
            )
    return []


def check_weights(bundle: Bundle) -> list[str]:
    """The weights load strictly, without code of their own."""
    path = bundle.root / "models" / "model.pt"
    if not path.exists():
        return ["models/model.pt is missing: train the bundle, or download its weights"]
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with _code_of(bundle):
        parser = ConfigParser()
        parser.read_config(bundle.path("inference"))
        parser.update({"bundle_root": str(bundle.root)})
        parser.get_parsed_content("network_def").load_state_dict(weights)
    return []


def check_own_copy(bundle: Bundle) -> list[str]:
    """The checks that run a packed bundle do so with its own copy of the package."""
    imported = Path(fsmis_components.__file__).resolve().parent
    if (bundle.root / PACKAGE).is_dir() and imported != (bundle.root / PACKAGE).resolve():
        return [f"the checks use the package in {imported}, not the bundle's own copy"]
    return []


def check_support_pack(bundle: Bundle) -> list[str]:
    """The default pack fits the shipped weights, and names what metadata.json says."""
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
        known = {
            key for name in names for key in ConfigParser.load_config_file(str(bundle.path(name)))
        }
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


# title, question, whether it runs what the configs say
CHECKS: tuple[tuple[str, Callable[[Bundle], list[str]], bool], ...] = (
    ("files", check_files, False),
    ("metadata schema", check_schema, False),
    ("model zoo", check_published, False),
    ("own copy", check_own_copy, True),
    ("network in and out", check_network, True),
    ("weights", check_weights, True),
    ("support pack", check_support_pack, True),
    ("train properties", partial(check_workflow, kind="train"), True),
    ("evaluate properties", partial(check_workflow, kind="train", overlay="evaluate"), True),
    ("inference properties", partial(check_workflow, kind="inference"), True),
)


def verify(root: Path, say: Callable[[str], object] = print, static: bool = False) -> bool:
    """Run every check on the bundle at ``root``, say each result, return whether all passed."""
    bundle = Bundle(root.resolve())
    passed = True
    for title, ask, runs in CHECKS:
        if runs and static:
            continue
        start = time.monotonic()
        problems = asked(ask, bundle)
        seconds = time.monotonic() - start
        passed = passed and not problems
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


@contextmanager
def _code_of(bundle: Bundle) -> Iterator[None]:
    """Let Python that a bundle carries be found, as MONAI's run command does."""
    sys.path.insert(0, str(bundle.root))
    try:
        yield
    finally:
        sys.path.remove(str(bundle.root))
