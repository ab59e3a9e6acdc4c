"""What `fsmis` does: the bundles' own configs, run by the command that it prints."""

from __future__ import annotations

import contextlib
import csv
import difflib
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from fsmis_components.data.errors import DataError
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.shipped_bundles import bundle_folder, shipped

METHOD = "ssl_alpnet"
_IDENTITIES = {"fit": ["fitting"], "train": ["training"]}  # what of a config is run


def segment(
    scans: Path, labelled: Path, output: Path = Path("masks"), method: str = METHOD, **knobs: str
) -> None:
    """Segment a folder of scans by one to five labelled ones: seconds a scan, no training.

    Args:
        scans: folder of scans (NIfTI, DICOM series), or a file with one path per line.
        labelled: folder of labelled scans (image_1.nii.gz, label_1.nii.gz), or a stored pack.
        output: receives a mask per scan, pictures, cases.csv and report.html.
        method: ssl_alpnet, cow, ipsnet, or the folder of a bundle.
        knobs: any knob of the bundle's inference.json, as --uncertainty True.
    """
    source = "support_pack" if labelled.is_file() else "support_dir"
    check_there(scans, labelled)
    places = {source: labelled, "dataset_dir": scans, "output_dir": output}
    _run(method, "inference", places, knobs)


def fit(
    scans: Path, labelled: Path, output: Path = Path("fitted"), method: str = METHOD, **knobs: str
) -> None:
    """Fit a small network to a folder of scans, in half an hour of a CPU.

    Args:
        scans: folder of four or more scans of one kind.
        labelled: folder of labelled scans.
        output: receives masks, cases.csv, report.html and the stand-alone bundle.
        method: whose masks are learned from: ssl_alpnet, cow, ipsnet, or the folder of a bundle.
        knobs: any knob of the bundle's fit.json, as --minutes 30.
    """
    check_there(scans, labelled)
    places = {"support_dir": labelled, "dataset_dir": scans, "output_dir": output}
    _run(method, "fit", places, knobs, results=output / "new" if "new_dir" in knobs else output)


def train(scans: Path, output: Path = Path("trained"), method: str = METHOD, **knobs: str) -> None:
    """Train a method on unlabelled scans, from the weights that are shipped.

    Args:
        scans: folder of unlabelled scans.
        output: receives checkpoints and curves; the same command goes on there.
        method: ssl_alpnet, cow, ipsnet, or the folder of a bundle.
        knobs: any knob of the bundle's train.json, as --initial_weights none.
    """
    knobs = {"initial_weights": "shipped", **knobs}
    _run(method, "train", {"dataset_dir": scans, "output_dir": output}, knobs)


def label(scans: Path, method: str = METHOD, port: int = 8000) -> None:
    """Start MONAI Label for 3D Slicer on this machine: label one scan, the others follow.

    Args:
        scans: folder of scans; labels are kept beside them.
        method: ssl_alpnet, cow, ipsnet, the folder of a bundle, or several, with commas.
        port: where Slicer finds the server: http://127.0.0.1:8000
    """
    words = [
        *("start_server", "--app", str(shipped("apps", "few_shot")), "--studies", str(scans)),
        *("--conf", "models", method, "--host", "127.0.0.1", "--port", str(port)),
    ]
    print(shlex.join(["monailabel", *words]), flush=True)
    sys.exit(_status([_monai_label(), *words]))


def pack(bundle: Path, output: Path = Path("dist")) -> None:
    """Pack a bundle as one file, in a clone of the repository.

    Args:
        bundle: the bundle's folder.
        output: receives the archive.
    """
    _python([str(shipped("tools", "pack_bundle.py")), str(bundle), "--output", str(output)])


def download(name: str, address: str, output: Path = Path("downloaded")) -> None:
    """Fetch a packed bundle.

    Args:
        name: of the bundle.
        address: of its archive: https://... or file://...
        output: receives the bundle's folder.
    """
    words = ["--name", name, "--url", address, "--bundle_dir", _argument(output)]
    _python(["-m", "monai.bundle", "download", *words])


def _run(
    method: str,
    config: str,
    places: Mapping[str, Any],
    knobs: Mapping[str, Any],
    results: Path | None = None,
) -> None:
    """End this process with what `monai.bundle run` of a config of a bundle ends with.

    Where masks do not lie in the output folder itself, `results` is where.
    """
    root = bundle_folder(method)
    path = root / "configs" / f"{config}.json"
    if not path.is_file():
        raise DataError(f"{path}: there is no such config; name a bundle that has it.")
    known = parse_json(path.read_text(encoding="utf-8"))
    for knob in knobs.keys() - known.keys():
        near = difflib.get_close_matches(knob, ["output", "method", "labelled", *known], 1)
        meant = f"; did you mean --{near[0]}?" if near else f"; see {root}/docs/README.md."
        raise DataError(f"--{knob}: there is no such option{meant}")
    if root.is_relative_to(Path.cwd()):
        root = root.relative_to(Path.cwd())
    words = ["-m", "monai.bundle", "run", *_IDENTITIES.get(config, [])]
    words += ["--config_file", str(path), "--bundle_root", str(root)]
    for knob, value in {**places, **knobs}.items():
        words += [f"--{knob}", _argument(value)]
    _python(words, results or places["output_dir"])


def _python(words: list[str], results: Path | None = None) -> None:
    """Print a command, end this process with what it ends with, and say what its results are."""
    print(shlex.join(["python", *words]), flush=True)
    started = time.time()
    status = _status([sys.executable, *words])
    if results is not None:
        print_outcome(results, 0 if status == 0 else started)
    sys.exit(status)


def print_outcome(output: Path, since: float) -> None:
    """Say what lies in a folder of masks, if its table was written since a time.

    A run that could not begin has no results, an earlier one may have.
    """
    table = output / "cases.csv"
    if not table.is_file() or table.stat().st_mtime < since:
        return
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    masks = sum(row["status"] == "done" for row in rows)
    doubtful = [row["case"] for row in rows if row.get("warning")]
    remarks = f", doubtful {', '.join(doubtful[:5])}" if doubtful else ""
    more = " and more" if len(doubtful) > 5 else ""
    report = output / "report.html"
    print(f"\n{masks} of {len(rows)} scans have a mask{remarks}{more}: look at {report}")


def check_there(*places: Path) -> None:
    """Tell of a path that leads nowhere before anything is loaded."""
    for place in places:
        if not place.exists():
            raise DataError(f"{place}: there is no such file or folder; check the path.")


def _argument(value: Any) -> str:
    """A value as the command line takes it; a folder of a name such as 20241128 stays a folder."""
    text = str(value)
    if isinstance(value, Path) and not isinstance(DefaultParseValue(text), str):
        return f"./{text}"
    return text


def _status(words: list[str]) -> int:
    """Run a command to its end, also when both are interrupted, and return its exit status."""
    quiet = {"PYTHONWARNINGS": "ignore", **os.environ}  # what libraries say to programmers
    with subprocess.Popen(words, env=quiet) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it was told too, and ends in order
                continue


def _monai_label() -> str:
    """The program of MONAI Label, of this environment or of the clone's own for it."""
    programs = "Scripts" if os.name == "nt" else "bin"
    places = [Path(sys.executable).parent, Path(".venv-label") / programs]
    with contextlib.suppress(DataError):
        places.append(shipped(".venv-label", programs))
    found = shutil.which("monailabel", path=os.pathsep.join(map(str, places)))
    if found is None:
        raise DataError(
            "MONAI Label is not installed here: in a clone of the repository run python "
            "tools/label_environment.py, and there the same command again."
        )
    return found
