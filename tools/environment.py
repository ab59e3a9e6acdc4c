"""Make or reuse the repository's .venv with the standard library alone."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (an older Python must still be able to read this)
    sys.exit(
        "This needs Python 3.11 or newer, but {} is Python {}.{}: install a newer one and run the "
        "same command with it.".format(sys.executable, *sys.version_info[:2])
    )

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".venv"
REQUIREMENTS = REPOSITORY / "requirements.txt"
FREE_GIGABYTES = 4.0  # CPU torch and the rest take 2, the downloads come on top
CPU_TORCH = "torch==2.13.0+cpu"
# asked only when no index or folder that pip already knows has the CPU build
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|Temporary failure in name resolution|getaddrinfo failed|Network is unreachable|SSLError"
)
_NO_SPACE = re.compile(r"No space left on device|Errno 28|not enough space", re.IGNORECASE)
_NO_MATCH = re.compile(r"No matching distribution found for (\S+)")


class SetupError(Exception):
    """The set-up cannot go on; the message is one sentence that says what to do."""


def answer_help(text: str | None) -> None:
    """End the command with a tool's own text where ``--help`` is asked for: nothing is set up."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((text or "").strip())
        sys.exit(0)


def prepare(
    extra: str = "",
    folder: Path = FOLDER,
    requirements: Path = REQUIREMENTS,
    gigabytes: float | None = None,
    **variables: str,
) -> Path:
    """Return the Python of an environment that holds everything the repository needs.

    Args:
        extra: ``"dev"`` adds the tools of ``pyproject.toml``'s extra of that name.
        folder: where the environment lies or is to lie.
        requirements: the file of pinned versions.
        gigabytes: space that the set-up needs (default ``FREE_GIGABYTES``).
        variables: of pip's environment, beside those that are there.

    Raises:
        SetupError: there is no network, no space, or no fitting package.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = _fingerprint(requirements)
    stamps = [folder / f"installed-{name}.txt" for name in {extra or "runtime", "dev"}]
    if python.exists() and any(s.exists() and s.read_text() == wanted for s in stamps):
        return python
    gigabytes = FREE_GIGABYTES if gigabytes is None else gigabytes
    print(f"Setting up {folder}: once, a few minutes, up to {gigabytes:.0f} GB.", flush=True)
    _require_space(folder, gigabytes)
    if not _works(python):
        _create(folder)
    log = folder / "install.log"
    log.write_text("")
    if not _has_torch(python) and not _has_nvidia_gpu() and sys.platform != "darwin":
        _install_cpu_torch(python, log)
    own = f"{REPOSITORY}[{extra}]" if extra else str(REPOSITORY)
    output = _pip(python, ["-r", str(requirements), "-e", own], log, **variables)
    if output is not None:
        raise SetupError(_explain(output, log))
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


def _works(python: Path) -> bool:
    """Return whether ``python`` starts and has pip; an environment that was moved does not."""
    try:
        check = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True)
    except OSError:
        return False
    return check.returncode == 0


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


def _has_torch(python: Path) -> bool:
    asked = subprocess.run([str(python), "-m", "pip", "show", "torch"], capture_output=True)
    return asked.returncode == 0


def _has_nvidia_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    return (
        program is not None and not subprocess.run([program, "-L"], capture_output=True).returncode
    )


def _install_cpu_torch(python: Path, log: Path) -> None:
    """Install the CPU build from where pip already looks, else from its index, else leave it."""
    for options in ([], ["--extra-index-url", CPU_TORCH_INDEX]):
        output = _pip(python, [CPU_TORCH, *options], log)
        if output is None:
            return
        if _NO_SPACE.search(output) or (not options and _NETWORK.search(output)):
            raise SetupError(_explain(output, log))
    print("  no CPU build of torch to be had; the standard one follows, with 3 GB of CUDA")


def _pip(python: Path, arguments: Sequence[str], log: Path, **variables: str) -> str | None:
    """Install, showing progress; return pip's output if it failed, else None."""
    start = time.monotonic()
    command = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--retries", "2"]
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
    )
    finished = threading.Event()
    threading.Thread(target=_show_patience, args=(finished, start), daemon=True).start()
    lines = []
    with log.open("a") as file:
        for line in process.stdout:
            lines.append(line)
            file.write(line)
            message = _progress(line)
            if message:
                print(f"  [{time.monotonic() - start:3.0f} s] {message}", flush=True)
    finished.set()
    return "".join(lines) if process.wait() else None


def _progress(line: str) -> str:
    """Return what a line of pip's output means to a person, or nothing."""
    match = re.match(r"\s*Downloading (\S+?)(?:-py\S*|-cp\S*|\.tar\.gz\S*) \((.+)\)", line)
    if match:
        return f"downloading {match[1]} ({match[2]})"
    match = re.match(r"Processing (\S+torch-\S+)", line)
    if match:
        return f"unpacking {Path(match[1]).name}"
    if line.startswith("Installing collected packages:"):
        return f"installing {line.count(',') + 1} packages"
    return ""


def _show_patience(finished: threading.Event, start: float) -> None:
    while not finished.wait(20):
        print(f"  [{time.monotonic() - start:3.0f} s] still at work", flush=True)


def _explain(output: str, log: Path) -> str:
    """Return one sentence on why pip failed and what to do."""
    if _NO_SPACE.search(output):
        return "The disk is full: make space (about 4 GB) and run the same command again."
    if _NETWORK.search(output):
        return (
            "No package index could be reached: connect this machine to the internet, or point "
            "PIP_INDEX_URL or PIP_FIND_LINKS at a mirror, and run the same command again."
        )
    match = _NO_MATCH.search(output)
    if match:
        return (
            f"pip found no {match[1]} for Python {sys.version_info[0]}.{sys.version_info[1]} on "
            "this machine: try Python 3.11 (64 bit), with which the pinned versions are tested."
        )
    last = [line for line in output.strip().splitlines() if line.strip()][-1:]
    return f"pip failed ({' '.join(last)}): {log} has its whole output."
