from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fsmis_components.__main__ import main
from phantom import draw_subject, write_subject

NAMES = [f"image_{number}" for number in range(2, 8)]


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "fsmis_components", *map(str, words)]


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*_seg.nii.gz"))}


def test_without_ray_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["cluster", "scans", "--labelled", "labelled"]) == 1
    said = capsys.readouterr().err
    assert said == "ray is not installed here; pip install '.[cluster]' on each machine.\n"


@pytest.mark.slow
def test_two_machines_segment_a_list_of_scans_though_a_worker_is_killed(tmp_path: Path) -> None:
    reason = "ray is not installed: pip install '.[cluster]'"
    utils: Any = pytest.importorskip("ray.cluster_utils", reason=reason)
    support, scans = tmp_path / "s", tmp_path / "q"
    shape = (96, 80, 12)
    pair = (support / "image_1.nii.gz", support / "label_1.nii.gz")
    write_subject(draw_subject(1, 1, shape), *pair)
    for number, name in enumerate(NAMES, 2):
        label = tmp_path / "unused" / f"{name}.nii.gz"
        write_subject(draw_subject(1, number, shape), scans / f"{name}.nii.gz", label)
    listed = tmp_path / "scans.csv"
    listed.write_text("\n".join(["image", *(f"q/{name}.nii.gz" for name in [*NAMES, "image_99"])]))
    subprocess.run(command("segment", scans, "--labelled", support, "--output", tmp_path / "one"))

    output = tmp_path / "many"
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        where = ("--address", cluster.address, "--output", output)
        words = command("cluster", listed, "--labelled", support, *where)
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as run:
            killed = kill_a_worker_in_the_middle(output, run)
            _, said = run.communicate()
    finally:
        cluster.shutdown()
    assert killed and run.returncode == 1
    assert "1 of 7 scans failed" in said and "image_99.nii.gz" in said
    assert masks(output) == masks(tmp_path / "one") and len(masks(output)) == len(NAMES)
    with (output / "cases.csv").open(newline="") as file:
        rows = [(row["case"], row["status"]) for row in csv.DictReader(file)]
    assert rows == [(name, "done") for name in NAMES] + [("image_99", "failed")]


def kill_a_worker_in_the_middle(output: Path, run: subprocess.Popen[str]) -> int:
    """Kill a worker that works on a scan after at least one mask is there; its process."""
    while run.poll() is None:
        busy = list(output.glob(".cluster/*/overlays/*.png"))
        if masks(output) and busy:
            # the folder of a worker is called <machine>_<process>_<anything>
            process = int(busy[0].relative_to(output / ".cluster").parts[0].split("_")[-2])
            os.kill(process, signal.SIGKILL)
            return process
        time.sleep(0.01)
    return 0
