"""What `pip install .` gives: the command, the bundles with their weights, the app."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_an_installed_package_needs_no_clone(phantom: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", installed, REPOSITORY], check=True)
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *packages])}
    # -S: the clone, installed so that it can be edited, is out of sight
    command = [sys.executable, "-S", "-m", "fsmis_components"]
    words = ["segment", phantom / "query", "--labelled", phantom / "support", "--output", "masks"]
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [*command, *map(str, words)], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (work / "masks" / "image_2_seg.nii.gz").is_file()
    assert (work / "masks" / "report.html").is_file()
    assert "1 of 1 scans have a mask: look at" in done.stdout
    assert (
        str(installed / "fsmis_shipped" / "bundles" / "ssl_alpnet") in done.stdout.splitlines()[0]
    )
    assert (installed / "bin" / "fsmis").exists() or os.name == "nt"
    for name in ("cow", "ipsnet"):
        bundle = installed / "fsmis_shipped" / "bundles" / name
        assert (bundle / "models" / "model.pt").is_file() and (bundle / "LICENSE").is_file()
    assert (installed / "fsmis_shipped" / "apps" / "few_shot" / "main.py").is_file()
