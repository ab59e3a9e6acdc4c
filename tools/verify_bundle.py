"""Check a bundle of this package, a folder or a packed archive, offline, one line per check.

    python tools/verify_bundle.py bundles/ssl_alpnet
    python tools/verify_bundle.py dist/ssl_alpnet_v0.2.0.zip

A packed bundle is used as its reader will, on made-up scans, with the repository out of Python's
sight. Checks run what the bundle's configs say: give --static for a bundle that you do not trust.
Exits with 1 if a check fails. Runs in the environment that tools/test.py makes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from fsmis_components.bundle import Bundle
from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError
from fsmis_components.packaging import PackageStamp, content_hash
from fsmis_components.support import SupportPack
from fsmis_components.support.source import try_pack
from phantom import write_dataset, write_phantom

PACKAGE = "fsmis_components"
SCHEMAS = Path(__file__).resolve().parent / "schemas"
NECESSARY = ("LICENSE", *(f"configs/{n}.json" for n in ("train", "evaluate", "inference")))
LIMIT = 600  # seconds of one command
LOAD = """
import sys, monai.bundle, torch
monai.bundle.download(name={name!r}, url={url!r}, bundle_dir={folder!r})
sys.path.insert(0, {folder!r} + "/" + {name!r})
network = monai.bundle.load(name={name!r}, bundle_dir={folder!r}, device="cpu")
assert isinstance(network, torch.nn.Module), type(network)
"""
Check = Callable[[Path], list[str]]


def verify_bundle(bundle: Path, static: bool = False) -> list[str]:
    """Check a bundle, one line per check.

    Args:
        bundle: a bundle's folder, or its zip archive, which is unpacked into a temporary folder.
        static: run nothing of the bundle.

    Returns:
        The problems, a sentence each.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if bundle.is_dir():
        return verify(bundle.resolve(), static)
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as folder:
        return verify(unpack(bundle, Path(folder).resolve()), static, bundle.resolve())


def verify(root: Path, static: bool = False, archive: Path | None = None) -> list[str]:
    """Run the checks of a bundle's folder, print each, and return the problems.

    Args:
        root: the folder.
        static: run nothing of the bundle.
        archive: that of a packed bundle, to be downloaded.
    """
    packed = (root / PACKAGE).is_dir()
    checks: dict[str, Check] = {"stamp": check_stamp} if packed else {}
    checks |= {"files": check_files, "metadata schema": check_schema, "model zoo": check_published}
    if packed and not static:  # the package that runs here is another one
        checks["use"] = partial(use_packed, archive=archive)
    elif not static:
        checks |= {"network in and out": check_network, "support pack": check_support_pack}
        checks["properties"] = check_properties
    problems = []
    for title, check in checks.items():
        found = asked(check, root)
        print(f"{title:>20}: {'; '.join(found) or 'ok'}", flush=True)
        problems += [f"{root.name}: {title}: {problem}" for problem in found]
    return problems


def asked(check: Check, root: Path) -> list[str]:
    """Return the problems that a check finds, or the first cause of what it raises in one line."""
    silence = io.StringIO()  # for what MONAI prints
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            return check(root)
        except (Exception, SystemExit) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            kind = "" if isinstance(cause, SystemExit) else f"{type(cause).__name__}: "
            return [f"{kind}{' '.join(str(cause).split())}"[:400]]


def unpack(path: Path, folder: Path) -> Path:
    """Unpack an archive of one folder into an empty folder, and return the bundle's.

    Python's `zipfile` leaves no file outside the folder and makes no link.
    """
    if not path.is_file():
        raise DataError(f"there is no folder or archive {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > shutil.disk_usage(folder).free:
                raise DataError(f"{path}: {size / 1e9:.1f} GB do not fit on the disk; make space.")
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: no readable zip archive ({error}); pack it again.") from error
    roots = list(folder.iterdir())
    if len(roots) != 1 or not roots[0].is_dir():
        raise DataError(f"{path}: MONAI expects one folder in an archive; pack that one.")
    return roots[0]


def config_path(root: Path, name: str) -> str:
    """Return where a config (such as ``train``) lies."""
    return str(root / "configs" / f"{name}.json")


def read_metadata(root: Path) -> dict[str, Any]:
    """Return the content of ``metadata.json``."""
    return ConfigParser.load_config_file(config_path(root, "metadata"))


def check_stamp(root: Path) -> list[str]:
    """The package of a packed bundle is the one that was packed."""
    stamp = PackageStamp.of_bundle(root)
    if stamp is None:
        return ["the copy of fsmis_components has no stamp: pack the bundle again"]
    if stamp.content != content_hash(root / PACKAGE):
        return ["the copy of fsmis_components was changed after packing: pack the bundle again"]
    return []


def check_files(root: Path) -> list[str]:
    """The files without which neither MONAI nor our pages take a folder for a bundle."""
    return [f"{name} is missing: add it" for name in NECESSARY if not (root / name).exists()]


def check_schema(root: Path) -> list[str]:
    """metadata.json fits MONAI's schema, which is kept in tools/schemas."""
    name = str(read_metadata(root).get("schema", "")).rsplit("/", 1)[-1]
    if not name or not (SCHEMAS / name).is_file():
        kept = ", ".join(sorted(path.name for path in SCHEMAS.glob("*.json")))
        return [f"metadata.json names the schema {name!r}, kept here is {kept}: name that one"]
    verify_metadata(meta_file=config_path(root, "metadata"), filepath=str(SCHEMAS / name))
    return []


def check_published(root: Path) -> list[str]:
    """What MONAI's model zoo asks of a bundle beside files and schema, and its reader needs."""
    metadata = read_metadata(root)
    needed = (
        *("name", "task", "description", "authors", "copyright", "data_source"),
        "required_packages_version",
    )
    empty = [key for key in needed if not metadata.get(key)]
    problems = [f"metadata.json: {key} is empty: fill it" for key in empty]
    if metadata.get("version") not in metadata.get("changelog", {}):
        problems.append("metadata.json: changelog does not name the version: say what changed")
    for name in ("docs/README.md", "docs/data_license.txt"):
        path = root / name
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            problems.append(f"{name} is missing or empty: write it")
    scripts = (root / "models").glob("*.ts")
    return problems + [f"models/{path.name}: TorchScript: remove it" for path in scripts]


def check_network(root: Path) -> list[str]:
    """The network maps one image of the documented size to the documented output."""
    for factor in (1, 3):
        verify_net_in_out(
            net_id="network_def",
            meta_file=config_path(root, "metadata"),
            config_file=config_path(root, "inference"),
            device="cpu",
            n=factor,
            any=32 * factor,
            bundle_root=str(root),
        )
    return []


def check_support_pack(root: Path) -> list[str]:
    """The weights load; the default pack fits them, and names what metadata.json says."""
    network = Bundle(root).network
    pack = SupportPack.load(root / "models" / "support_pack.safetensors")
    pack.check_fits(network)
    try_pack(pack, network)
    problems = []
    names = ["background", *(structure.name for structure in pack.structures)]
    pred = read_metadata(root)["network_data_format"]["outputs"]["pred"]["channel_def"]
    if [pred.get(str(channel)) for channel in range(len(names))] != names:
        problems.append(f"channel_def of pred is not {names}, as the default pack has it")
    values = [structure.value for structure in pack.structures]
    if values != list(range(1, len(names))):
        problems.append(f"label values of the default pack are {values}: number them from 1")
    return problems


def check_properties(root: Path) -> list[str]:
    """The workflows have every property that MONAI's tools ask for."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_dataset(Path(folder) / "data", count=6, shape=(48, 40, 12))
        for names in (["train"], ["train", "evaluate"], ["inference"]):
            workflow = ConfigWorkflow(
                workflow_type=names[0],
                config_file=[config_path(root, name) for name in names],
                meta_file=config_path(root, "metadata"),
                logging_file=False,
                bundle_root=str(root),
                dataset_dir=str(dataset),
                output_dir=f"{folder}/output",
            )
            workflow.initialize()
            missing = workflow.check_properties() or []
            workflow.finalize()
            problems += [f"{names[-1]}: {name} is missing or has another id" for name in missing]
    return problems


def use_packed(root: Path, archive: Path | None) -> list[str]:
    """Infer, train and evaluate with a packed bundle, download and load its archive."""
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as name:
        folder = Path(name).resolve()
        query = write_phantom(folder / "phantom", seed=1, shape=(64, 56, 8))["query"]
        data = write_dataset(folder / "data", count=6, shape=(48, 40, 12))

        def run(place: Path | str, config: str, scans: Path, *knobs: str) -> list[str]:
            names = [f"{place}/configs/{name}.json" for name in config.split("+")]
            words = ["-m", "monai.bundle", "run", "--config_file", str(names)]
            words += ["--bundle_root", str(place), "--dataset_dir", str(scans)]
            return [*words, "--output_dir", str(folder / config), *knobs]

        small = ("--spatial_size", "64")
        short = (*small, "--epochs", "1", "--episodes_per_epoch", "2", "--val_episodes", "2")
        train = run(".", "train", data, *short, "--pseudo_label_min_size", "[300]")
        evaluate = run(".", "train+evaluate", data, *small, "--whole_volume", "False")
        # where it is done, what is done, what is there afterwards
        steps = [
            (folder, run(root, "inference", query), "inference/image_2_seg.nii.gz"),
            (root, train, "train/models/model.pt"),
            (root, evaluate, "train+evaluate/ep1_fold0.csv"),
        ]
        if archive is not None:
            facts = {"name": root.name, "url": archive.as_uri(), "folder": f"{folder}/downloads"}
            steps.append((folder, ["-c", LOAD.format(**facts)], f"downloads/{root.name}/LICENSE"))
        # an editable installation is found by a .pth file, which Python reads in `site`: with -S
        # and the folders of packages on PYTHONPATH it is out of sight
        packages = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
        variables = {"PYTHONPATH": os.pathsep.join(packages), "OMP_NUM_THREADS": "1"}
        problems = []
        for place, words, made in steps:
            done = subprocess.run(
                [sys.executable, "-S", "-B", "-W", "ignore", *words],
                cwd=place,
                env={**os.environ, **variables},
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            if done.returncode or not (folder / made).exists():
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                problems.append(f"{made} was not made: {last[:400]}")
        return problems


if __name__ == "__main__":
    sys.exit(command(verify_bundle))
