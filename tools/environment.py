"""Make or reuse the repository's .venv with the standard library alone."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (an older Python must still be able to read this)
    sys.exit(
        "This needs Python 3.11 or newer, but {} is Python {}.{}: install a newer one and run the "
        "same command with it.".format(sys.executable, *sys.version_info[:2])
    )

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".venv"
REQUIREMENTS = REPOSITORY / "requirements.txt"
FREE_GIGABYTES = 4.0  # CPU torch and the rest take 2, the downloads come on top
CPU_TORCH = "torch==2.13.0+cpu"
# asked only when no index or folder that pip already knows has the CPU build
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(SystemExit):
    """The set-up cannot go on, and the command ends by one sentence that says what to do."""


def answer_help(text: str | None) -> None:
    """End the command with a tool's own text where ``--help`` is asked for: nothing is set up."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((text or "").strip())
        sys.exit(0)


def prepare(
    extra: str = "",
    folder: Path = FOLDER,
    requirements: Path = REQUIREMENTS,
    gigabytes: float = FREE_GIGABYTES,
    **variables: str,
) -> Path:
    """Return the Python of an environment that holds everything the repository needs.

    Args:
        extra: ``"dev"`` adds the tools of ``pyproject.toml``'s extra of that name.
        folder: where the environment lies or is to lie.
        requirements: the file of pinned versions.
        gigabytes: space that the set-up needs.
        variables: of pip's environment, beside those that are there.

    Raises:
        SetupError: there is no network, no space, or no fitting package.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = _fingerprint(requirements)
    stamps = [folder / f"installed-{name}.txt" for name in {extra or "runtime", "dev"}]
    if python.exists() and any(s.exists() and s.read_text() == wanted for s in stamps):
        return python
    print(f"Setting up {folder}: once, a few minutes, up to {gigabytes:.0f} GB.", flush=True)
    _require_space(folder, gigabytes)
    if not _pip_answers(python, "--version"):
        _create(folder)
    if not (_pip_answers(python, "show", "torch") or _has_nvidia_gpu() or sys.platform == "darwin"):
        _install_cpu_torch(python)
    package = f"{REPOSITORY}[{extra}]" if extra else str(REPOSITORY)
    if not _pip(python, ["-r", str(requirements), "-e", package], **variables):
        raise SetupError(
            "pip could not install the packages (its last lines above say why): without a network "
            "connect this machine or point PIP_INDEX_URL at a mirror, make space on a full disk, "
            "and where no version fits take Python 3.11; then run the same command again."
        )
    (folder / f"installed-{extra or 'runtime'}.txt").write_text(wanted)
    return python


def run(python: Path, arguments: Sequence[str | Path], **variables: str) -> int:
    """Run ``python`` with ``arguments`` in the repository and return its exit status."""
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **variables}).returncode


def _fingerprint(requirements: Path) -> str:
    """Return a hash of all that decides what is installed, the repository's place included."""
    parts = [path.read_bytes() for path in (requirements, REPOSITORY / "pyproject.toml")]
    parts.append(f"{REPOSITORY} {sys.version_info[:2]}".encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _require_space(folder: Path, gigabytes: float) -> None:
    free = shutil.disk_usage(folder.parent).free / 1e9
    if not folder.exists() and free < gigabytes:
        raise SetupError(
            f"{folder.parent} has {free:.1f} GB free, and the set-up needs {gigabytes:.0f}: "
            "make space, or clone the repository onto a larger disk."
        )


def _pip_answers(python: Path, *words: str) -> bool:
    """Return whether pip succeeds; that of an environment that was moved does not."""
    try:
        asked = subprocess.run([str(python), "-m", "pip", *words], capture_output=True)
    except OSError:
        return False
    return asked.returncode == 0


def _create(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SetupError(
            f"{folder} exists and is no virtual environment: move it away and try again."
        )
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        last = (made.stdout + made.stderr).strip().splitlines()[-1:]
        raise SetupError(
            f"Python could not make {folder} ({' '.join(last)}): on Debian or Ubuntu install the "
            "package python3-venv, then run the same command again."
        )


def _has_nvidia_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    return bool(program) and not subprocess.run([program, "-L"], capture_output=True).returncode


def _install_cpu_torch(python: Path) -> None:
    """Install the CPU build from where pip already looks, else from its index, else leave it."""
    known = [CPU_TORCH]
    if not (_pip(python, known) or _pip(python, [*known, "--extra-index-url", CPU_TORCH_INDEX])):
        print("  no CPU build of torch to be had; the standard one follows, with 3 GB of CUDA")


def _pip(python: Path, arguments: Sequence[str], **variables: str) -> bool:
    """Install, showing what pip says; return whether it succeeded."""
    options = ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    return run(python, ["-m", "pip", "install", *options, *arguments], **variables) == 0
