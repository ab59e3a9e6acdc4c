"""The annotator's page of our own app: its commands are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: python tools/test_label_server.py")

import nibabel
import numpy as np
from server_process import STOCK, LabelServer

from environment import REPOSITORY
from phantom import draw_subject, write_subject

PAGE = (REPOSITORY / "apps" / "few_shot" / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the page's code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(
    start_server: Callable[..., LabelServer], tmp_path_factory: pytest.TempPathFactory
) -> LabelServer:
    """Return our own app on three scans; the label of the first lies in the session's folder."""
    studies = tmp_path_factory.mktemp("studies")
    for number in (1, 2, 3):
        truth = studies.parent / f"label_{number}.nii.gz"
        write_subject(
            draw_subject(1, number, (96, 80, 12)), studies / f"scan_{number}.nii.gz", truth
        )
    return start_server(REPOSITORY / "apps" / "few_shot", studies, ["ssl_alpnet"])


def test_every_documented_server_listens_to_its_own_machine_only():
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[abft]*/**/*.md")):
        for line in page.read_text().splitlines():
            if "start_server" in line:
                assert "--host 127.0.0.1" in line, f"{page}: {line}"


def test_preparations_leave_a_bundle_where_the_app_finds_it(tmp_path: Path):
    """Everything but the environment, which runs this test, and the servers."""
    shutil.copytree(REPOSITORY / "bundles" / "ssl_alpnet", tmp_path / "bundles" / "ssl_alpnet")
    lines = [
        line
        for block in blocks("bash")
        for line in block.splitlines()
        if line.startswith(("mkdir", "cp", "monailabel apps"))
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        timeout=120,
    )
    for app in ("apps/few_shot", f"label_apps/{STOCK}"):
        assert (tmp_path / app / "model" / "ssl_alpnet" / "models" / "model.pt").is_file()
    assert (tmp_path / "label_apps" / STOCK / "main.py").is_file()


def test_session_of_the_page(
    server: LabelServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(server.studies.parent)
    named: dict[str, Any] = {}
    _run_python(blocks("python")[0], server, named)
    assert named["sample"]["id"] in {"scan_1", "scan_2", "scan_3"}
    _write_spleen_and_liver(server.studies.parent / "label_1.nii.gz")
    for block in blocks("python")[1:]:
        _run_python(block, server, named)
    assert named["params"]["label_names"] == {"spleen": 1, "liver": 2}
    assert named["params"]["support"]["scans"] == ["scan_1"]
    mask = nibabel.load(named["mask"])
    image = nibabel.load(server.studies / "scan_2.nii.gz")
    assert mask.shape == image.shape and np.allclose(mask.affine, image.affine, atol=1e-3)
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1, 2}
    said = capsys.readouterr().out
    assert "'expected_dice'" not in said and "{'spleen': 1, 'liver': 2}" in said
    info = server.get("/info/")
    offered = {*info["models"], *info["trainers"], "ssl_alpnet_fitted"}  # the last after Train
    assert set(re.findall(r"`(ssl_alpnet\w*)`", PAGE)) <= offered
    for entry in ("label_names", "structures", "expected_dice", "support", "warnings"):
        assert entry in named["params"] and f"`{entry}`" in PAGE

    (batch,) = (block for block in blocks("bash") if block.startswith("curl"))
    done = subprocess.run(
        ["bash", "-c", batch.replace(ADDRESS, server.url)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"scan_2", "scan_3"}
    record = json.loads((server.studies / "datastore_v2.json").read_text())["objects"]
    for name in ("scan_2", "scan_3"):
        noted = record[name]["labels"]["original"]["info"]["params"]
        assert noted["support"]["source"] == "datastore"
        assert set(noted["expected_dice"]) == {"spleen", "liver"}
        assert (server.studies / "labels" / "original" / f"{name}.nii.gz").is_file()


def _run_python(block: str, server: LabelServer, named: dict[str, Any]) -> None:
    exec(block.replace(ADDRESS, server.url), named)


def _write_spleen_and_liver(path: Path) -> None:
    """Keep the two structures of the page in a label that has four."""
    label = nibabel.load(path)
    data = np.asarray(label.dataobj)
    kept = np.where(data <= 2, data, 0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(kept, label.affine, label.header), path)
