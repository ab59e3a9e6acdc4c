"""One process holds one content of the package: the same content serves, any other is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fsmis_components
from fsmis_components.packaging import STAMP, PackageStamp, content_hash, own_package
from pack_bundle import packed_files

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path(fsmis_components.__file__).resolve().parent


def _packed(folder: Path, bundle: str) -> Path:
    """Write a bundle as packed."""
    version = fsmis_components.__version__
    files = packed_files(REPOSITORY / "bundles" / bundle, PACKAGE, "0.1.0", version)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _python(code: str, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code where neither the repository nor its editable installation can be found."""
    packages = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *packages])}
    command = [sys.executable, "-S", "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


def _stamp(root: Path, content: str) -> None:
    path = root / PACKAGE.name / STAMP
    path.parent.mkdir(parents=True)
    path.write_text(PackageStamp("toy", "0.3.0", "0.2.0", content).text())


def test_other_content_is_refused_in_one_sentence(tmp_path: Path):
    _stamp(tmp_path, "ab" * 32)
    with pytest.raises(SystemExit) as refused:
        own_package(tmp_path)
    assert str(refused.value) == (
        "bundle toy 0.3.0 was packed with fsmis_components 0.2.0 (content abababababab), but "
        f"{fsmis_components.__version__} (content {content_hash(PACKAGE)[:12]}) from {PACKAGE} is "
        f"imported: run the bundle in a Python process of its own, started in {tmp_path.resolve()}."
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bundle": "toy"}'])
def test_a_broken_stamp_is_said(text: str, tmp_path: Path):
    _stamp(tmp_path, "x")
    (tmp_path / PACKAGE.name / STAMP).write_text(text)
    with pytest.raises(SystemExit, match="unpack the bundle's archive again"):
        own_package(tmp_path)


def test_the_content_is_names_and_bytes_and_nothing_else(tmp_path: Path):
    first = tmp_path / "first"
    (first / "inner").mkdir(parents=True)
    (first / "a.py").write_text("1")
    (first / "inner" / "b.py").write_text("2")
    second = shutil.copytree(first, tmp_path / "second")
    (second / "inner" / "__pycache__").mkdir()
    (second / "inner" / "__pycache__" / "b.cpython-311.pyc").write_bytes(b"3")
    (second / STAMP).write_text("{}")
    os.utime(second / "a.py", (0, 0))
    assert content_hash(first) == content_hash(second)
    (second / "inner" / "b.py").rename(second / "inner" / "c.py")
    assert content_hash(first) != content_hash(second)
    # the border between two files is content as well
    (first / "a.py").write_text("12")
    (first / "inner" / "b.py").write_text("")
    assert content_hash(first) != content_hash(shutil.copytree(tmp_path / "second", tmp_path / "3"))


NETWORKS = """
import sys
from monai.bundle import ConfigParser

for root in sys.argv[1:]:
    parser = ConfigParser()
    parser.read_config(f"{root}/configs/inference.json")
    parser.update({"bundle_root": root})
    network = parser.get_parsed_content("network_def")
    print(type(network).__name__, sys.modules["fsmis_components"].__file__, flush=True)
"""


def test_packed_bundles_in_one_process_beside_an_installed_package(tmp_path: Path):
    first, second = _packed(tmp_path / "a", "ssl_alpnet"), _packed(tmp_path / "b", "cow")
    installed = tmp_path / "installed" / PACKAGE.name / "__init__.py"
    installed.parent.mkdir(parents=True)
    installed.write_text('__version__ = "0.0.1"\n')
    code = f"import sys\nsys.argv[1:] = {[str(first), str(second)]!r}\n{NETWORKS}"
    done = _python(code, tmp_path, installed.parent.parent)
    # the bundle's copy comes before the installed package; the second bundle shares the content
    own = first / PACKAGE.name / "__init__.py"
    assert done.stdout.splitlines() == [f"ALPNet {own}", f"CoW {own}"], done.stderr
