"""The inference command under Ctrl+C and in two processes; untrained networks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from block_scans import block_label, write_scan
from bundle_folders import REFERENCE

pytestmark = pytest.mark.slow


def start(
    folder: Path,
    configs: str = "configs/inference.json",
    launcher: tuple[str, ...] = (),
    output: str = "o",
) -> subprocess.Popen[str]:
    line = [sys.executable, "-W", "ignore", *launcher, "-m", "monai.bundle", "run"]
    line += ["--config_file", configs, "--bundle_root", "."]
    line += ["--weights", "none", "--spatial_size", "32", "--device", "cpu"]
    line += ["--support_dir", str(folder / "s"), "--dataset_dir", str(folder / "q")]
    line += ["--output_dir", str(folder / output)]
    return subprocess.Popen(
        line,
        cwd=REFERENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # tests that run in the background of a shell inherit that Ctrl+C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and last line."""
    text = process.communicate(timeout=300)[0]
    return process.returncode, text.rstrip().splitlines()[-1]


def statuses(folder: Path) -> list[str]:
    lines = (folder / "o" / "cases.csv").read_text().splitlines()[1:]
    return [",".join(line.split(",")[:2]) for line in lines]


def test_ctrl_c_and_the_same_command_again(tmp_path: Path) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    names = [f"image_{number}" for number in range(2, 22)]
    for number in range(2, 22):
        write_scan(tmp_path / "q", number)
    process = start(tmp_path)
    table = tmp_path / "o" / "cases.csv"
    while process.poll() is None and not table.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, last_line = ended(process)
    assert code == 1
    assert last_line.startswith("interrupted with ") and "of 20 scans done" in last_line
    done = statuses(tmp_path)
    assert 0 < len(done) < 20 and done == [f"{name},done" for name in names[: len(done)]]
    masks = {path: path.stat().st_mtime_ns for path in (tmp_path / "o").glob("*_seg.nii.gz")}
    assert ended(start(tmp_path))[0] == 0
    assert statuses(tmp_path) == [f"{name},done" for name in names]
    kept = [tmp_path / "o" / f"{name}_seg.nii.gz" for name in names[: len(done)]]
    assert all(path.stat().st_mtime_ns == masks[path] for path in kept)
    assert [path.name for path in (tmp_path / "o").rglob(".*")] == [".writing"]


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    write_scan(tmp_path / "s", 1, block_label())
    for number in range(2, 6):
        write_scan(tmp_path / "q", number)
    several = start(
        tmp_path,
        configs="['configs/inference.json','configs/multi_gpu_inference.json']",
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    )
    code, last_line = ended(several)
    assert code == 0, last_line
    assert statuses(tmp_path) == [f"image_{number},done" for number in range(2, 6)]
    code, last_line = ended(start(tmp_path, output="alone"))
    assert code == 0, last_line
    masks = sorted((tmp_path / "alone").glob("*_seg.nii.gz"))
    assert len(masks) == 4
    assert all(path.read_bytes() == (tmp_path / "o" / path.name).read_bytes() for path in masks)
