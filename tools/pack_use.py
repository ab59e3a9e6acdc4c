"""Use a packed bundle as its reader will: with its own copy of the package, away from all else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bundle_checks import verify
from fsmis_components.data.errors import DataError
from fsmis_components.packaging import PackageStamp, content_hash
from phantom import write_dataset, write_phantom

TOOLS = Path(__file__).resolve().parent
LIMIT = 600  # seconds of one command
LOAD = """
import monai.bundle, torch, fsmis_components
network = monai.bundle.load(name={name!r}, bundle_dir={folder!r}, device="cpu")
assert isinstance(network, torch.nn.Module), type(network)
"""


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
    script = str(TOOLS / "verify_bundle.py")
    done = _python([script, str(root), "--here"], cwd=root.parent, first=root)
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
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as name:
        folder = Path(name).resolve()
        scans = write_phantom(folder / "phantom", seed=1, shape=(64, 56, 8))
        data = write_dataset(folder / "data", count=6)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        url, downloads = archive.resolve().as_uri(), folder / "downloads"
        # MONAI 1.6.1 fails without a name
        download = ["download", "--name", root.name, "--url", url, "--bundle_dir", str(downloads)]
        copy = downloads / root.name
        load = LOAD.format(name=root.name, folder=str(downloads))
        query, given = scans["query"], ["--support_dir", str(scans["support"])]
        short = ["--epochs", "1", "--episodes_per_epoch", "2", "--num_workers", "0"]
        evaluation = "['configs/train.json','configs/evaluate.json']"
        mask = "image_2_seg.nii.gz"
        # title, where it is done, what is done, what is there afterwards; the first segmentation
        # is by the default pack
        steps = [
            ("run elsewhere", elsewhere, _run(root, "inference", query, folder / "a"), f"a/{mask}"),
            ("download", elsewhere, _bundle(*download), f"downloads/{root.name}/LICENSE"),
            ("load", copy, ["-c", load], ""),
            ("own support", copy, _run(".", "inference", query, folder / "c", *given), f"c/{mask}"),
            ("training", copy, _run(".", "train", data, folder / "d", *short), "d/models/model.pt"),
            (
                "evaluation",
                copy,
                _run(".", evaluation, data, folder / "e", "--whole_volume", "False"),
                "e/ep1_fold0.csv",
            ),
        ]  # fmt: skip
        passed = True
        for title, place, arguments, made in steps:
            if not place.is_dir():
                break
            done = _python(arguments, cwd=place)
            problem = _last_line(done.stderr) if done.returncode else ""
            if not problem and not (folder / made).exists():
                problem = f"did not write {made}"
            say(f"{title:>22}: {problem or 'ok'}")
            passed = passed and not problem
        return passed


def _bundle(*arguments: str) -> list[str]:
    return ["-m", "monai.bundle", *arguments]


def _run(root: Path | str, config: str, data: Path, output: Path, *knobs: str) -> list[str]:
    """The words of `monai.bundle run` with a config of a bundle, or with several."""
    path = config if config.startswith("[") else f"{root}/configs/{config}.json"
    places = ["--bundle_root", str(root), "--dataset_dir", str(data), "--output_dir", str(output)]
    return _bundle("run", "--config_file", path, *places, *knobs)


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


def _python(
    arguments: list[str], cwd: Path, first: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python that finds installed packages, but not the repository.

    An editable installation is found by a ``.pth`` file, which Python reads in ``site``; with
    ``-S`` and the folders of packages on PYTHONPATH it is out of sight.

    Args:
        arguments: of Python.
        cwd: where the process starts.
        first: a bundle that comes before the installed packages, and that is not written to; None:
            nothing does.
    """
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    shown = [*([str(first)] if first else []), *packages]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(shown), "OMP_NUM_THREADS": "1"}
    flags = ["-S", "-W", "ignore", *(["-B"] if first else [])]
    return subprocess.run(
        [sys.executable, *flags, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:400]
