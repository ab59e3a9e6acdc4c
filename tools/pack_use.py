"""Use a packed bundle as its reader will: with its own copy of the package, away from all else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bundle_checks import verify
from fsmis_components.data.errors import DataError
from fsmis_components.packaging import PackageStamp, content_hash

TOOLS = Path(__file__).resolve().parent
STEPS_LIMIT = 600  # seconds for all steps of one process
Step = dict[str, Any]


def is_packed(root: Path) -> bool:
    """Return whether a folder is a bundle as tools/pack_bundle.py packs it."""
    return (root / "fsmis_components" / "__init__.py").is_file()


def verify_packed(
    root: Path, say: Callable[[str], object], static: bool = False, archive: Path | None = None
) -> bool:
    """Check a packed bundle: its stamp, its files, then its use.

    Args:
        root: the unpacked bundle.
        say: gets each line.
        static: run nothing of the bundle.
        archive: where the bundle was unpacked from; it is downloaded from there too, and as all
            that is temporary, the bundle is used. A folder of the user's is not written to.

    Returns:
        Whether all passed.
    """
    problem = _stamp_problem(root)
    say(f"{'stamp':>22}: {problem or 'ok'}")
    if static:  # nothing of the bundle is imported: the repository's package answers
        return verify(root, say, static=True) and not problem
    done = _python(["verify_bundle.py", str(root), "--here"], cwd=root.parent, first=root)
    for line in done.stdout.splitlines():
        say(line)
    if done.returncode not in (0, 1):
        say(f"{'checks':>22}: ended by {done.returncode}: {_last_line(done.stderr)}")
    passed = not problem and done.returncode == 0
    if archive is None:
        return passed
    return use_packed(root, say, archive) and passed


def use_packed(root: Path, say: Callable[[str], object], archive: Path) -> bool:
    """Infer, train, evaluate, download and load with an unpacked bundle, on made-up data.

    Args:
        root: the bundle; Python's caches of its package are written there.
        say: gets each line.
        archive: the bundle's archive.

    Returns:
        Whether all went well.
    """
    passed = True
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as folder:
        for title, problem in _use(root, archive, Path(folder).resolve()):
            say(f"{title:>22}: {problem or 'ok'}")
            passed = passed and not problem
    return passed


def _stamp_problem(root: Path) -> str:
    try:
        stamp = PackageStamp.of_bundle(root)
    except DataError as error:
        return str(error)
    if stamp is None:
        return "the copy of fsmis_components has no stamp: pack the bundle by tools/pack_bundle.py"
    if stamp.content != content_hash(root / "fsmis_components"):
        return "the copy of fsmis_components was changed after packing: pack the bundle again"
    return ""


def _use(root: Path, archive: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what was done with the bundle and what went wrong, in two processes."""
    from phantom import write_dataset, write_phantom

    scans = write_phantom(folder / "phantom", seed=1, shape=(64, 56, 8))
    data = str(write_dataset(folder / "data", count=6))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run = _inference("run elsewhere", str(root), scans["query"], folder / "masks_elsewhere")
    download = {
        "title": "download",
        "call": "download",
        # MONAI 1.6.1 fails without a name
        "arguments": {
            "name": root.name,
            "url": archive.resolve().as_uri(),
            "bundle_dir": str(folder / "downloaded"),
        },
        "makes": [str(folder / "downloaded" / root.name / "configs" / "metadata.json")],
    }
    yield from _steps("elsewhere", root, elsewhere, [run, download])
    downloaded = folder / "downloaded" / root.name
    if not downloaded.is_dir():
        return
    load = {"name": root.name, "bundle_dir": str(downloaded.parent), "device": "cpu"}
    support = {"support_dir": str(scans["support"])}
    yield from _steps(
        "in the folder that was downloaded",
        downloaded,
        downloaded,
        [
            {"title": "load", "call": "load", "arguments": load, "makes": []},
            _inference("default pack", ".", scans["query"], folder / "masks_default"),
            _inference("own support", ".", scans["query"], folder / "masks_support", **support),
            {
                "title": "training",
                "call": "run",
                "arguments": {
                    "config_file": "configs/train.json",
                    **_places(".", data, folder / "trained"),
                    **{"epochs": 1, "episodes_per_epoch": 2, "num_workers": 0},
                },
                "makes": [str(folder / "trained" / "models" / "model.pt")],
            },
            {
                "title": "evaluation",
                "call": "run",
                "arguments": {
                    "config_file": ["configs/train.json", "configs/evaluate.json"],
                    **_places(".", data, folder / "evaluated"),
                    "whole_volume": False,
                },
                "makes": [str(folder / "evaluated" / "ep1_fold0.csv")],
            },
        ],
    )


def _inference(title: str, root: str, queries: Path, output: Path, **knobs: str) -> Step:
    return {
        "title": title,
        "call": "run",
        "arguments": {
            "config_file": f"{root}/configs/inference.json",
            **_places(root, str(queries), output),
            **knobs,
        },
        "makes": [str(output / "image_2_seg.nii.gz")],
    }


def _places(root: str, data: str, output: Path) -> dict[str, str]:
    return {"bundle_root": root, "dataset_dir": data, "output_dir": str(output)}


def _steps(where: str, root: Path, cwd: Path, steps: list[Step]) -> Iterator[tuple[str, str]]:
    """Yield title and problem of every step, done one after the other in one new process.

    Args:
        where: names the process in a message.
        root: the bundle whose copy of the package is to be the one used.
        cwd: where the process starts.
        steps: see pack_steps.
    """
    plan = json.dumps({"package": str(root / "fsmis_components"), "steps": steps})
    done = _python(["pack_steps.py", plan], cwd=cwd)
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]
    results = {entry["title"]: entry["problem"] for entry in map(json.loads, said)}
    for step in steps:
        ended = f"the process {where} ended before: {_last_line(done.stderr)}"
        yield step["title"], results.get(step["title"], ended)


def _python(
    arguments: list[str], cwd: Path, first: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script of tools/ in a Python that finds installed packages, but not the repository.

    An editable installation is found by a ``.pth`` file, which Python reads in ``site``; with
    ``-S`` and the folders of packages on PYTHONPATH it is out of sight.

    Args:
        arguments: the script and what follows.
        cwd: where the process starts.
        first: a bundle that comes before the installed packages, and that is not written to; None:
            nothing does.
    """
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    shown = [*([str(first)] if first else []), *packages]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(shown), "OMP_NUM_THREADS": "1"}
    script, *rest = arguments
    flags = ["-S", "-W", "ignore", *(["-B"] if first else [])]
    return subprocess.run(
        [sys.executable, *flags, str(TOOLS / script), *rest],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STEPS_LIMIT,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
