"""Make or reuse .venv-label, the environment of MONAI Label, with the standard library alone.

    python tools/label_environment.py

prints the Python of the environment. MONAI Label needs older packages than the rest of the
repository (see ``label_requirements.txt``), so it never shares ``.venv``.
"""

import shutil
import subprocess
from pathlib import Path

from environment import REPOSITORY, SetupError, answer_help, prepare  # first: refuses an old Python

FOLDER = REPOSITORY / ".venv-label"
REQUIREMENTS = REPOSITORY / "tools" / "label_requirements.txt"
FREE_GIGABYTES = 6.0  # the installed packages take 4, the downloads come on top
OPERATORS = REPOSITORY / "tools" / "torchvision_operators.py"
# what torchvision says whose compiled part is for CUDA while torch's is not
MISSING_OPERATORS = "operator torchvision::nms does not exist"


def prepare_label(folder: Path = FOLDER) -> Path:
    """Return the Python of an environment that holds MONAI Label and this repository.

    Raises:
        SetupError: there is no network, no space, no fitting package, or torchvision fails.
    """
    python = prepare(
        folder=folder,
        requirements=REQUIREMENTS,
        gigabytes=FREE_GIGABYTES,
        # reach the environments in which pip builds sam2; the second is what newer pips call it
        PIP_CONSTRAINT=str(REQUIREMENTS),
        PIP_BUILD_CONSTRAINT=str(REQUIREMENTS),
    )
    problem = _import_problem(python)
    if MISSING_OPERATORS in problem:
        declare_operators(python)
        problem = _import_problem(python)
    if problem:
        raise SetupError(
            f"torchvision cannot be imported in {folder} ({problem}): delete that folder and run "
            "the same command again."
        )
    return python


def declare_operators(python: Path) -> None:
    """Have every process of ``python`` declare torchvision's operators when it is imported."""
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    packages = Path(
        subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    )
    shutil.copy(OPERATORS, packages)
    (packages / f"{OPERATORS.stem}.pth").write_text(f"import {OPERATORS.stem}\n")


def _import_problem(python: Path) -> str:
    """Return the last line of what importing torchvision says, or nothing if it works."""
    tried = subprocess.run(
        [str(python), "-c", "import torchvision"], capture_output=True, text=True
    )
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


if __name__ == "__main__":
    answer_help(__doc__)
    print(prepare_label())
