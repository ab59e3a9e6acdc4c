"""The inference command as users type it; small scans, an untrained network."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan
from bundle_folders import REFERENCE, REPOSITORY
from monai.bundle import run

# an untrained network on small slices: what is tested here does not depend on how good it is
SMALL = {"weights": "none", "spatial_size": 32, "device": "cpu"}


def start(
    folder: Path,
    root: str = ".",
    configs: str = "configs/inference.json",
    launcher: tuple[str, ...] = (),
    output: str = "o",
) -> subprocess.Popen[str]:
    """Begin the command on the scans of a folder, in the bundle's folder or in the repository."""
    places = {"support_dir": folder / "s", "dataset_dir": folder / "q"}
    knobs = {"config_file": configs, "bundle_root": root, **SMALL, **places}
    line = [sys.executable, "-W", "ignore", *launcher, "-m", "monai.bundle", "run"]
    for key, value in {**knobs, "output_dir": folder / output}.items():
        line += [f"--{key}", str(value)]
    return subprocess.Popen(
        line,
        cwd=REFERENCE if root == "." else REPOSITORY,
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


def in_process(bundle: Path, output: Path, **settings: object) -> None:
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        logging_file=False,
        bundle_root=str(bundle),
        output_dir=str(output),
        **{k: str(v) if isinstance(v, Path) else v for k, v in {**SMALL, **settings}.items()},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scan(tmp_path / "s", 1, block_label())
    write_scan(tmp_path / "q", 2)
    return tmp_path


def test_a_bad_scan_ends_the_command_with_its_sentence(folder: Path) -> None:
    (folder / "q" / "image_3.nii.gz").write_bytes(b"no NIfTI")
    root = str(REFERENCE.relative_to(REPOSITORY))
    code, last_line = ended(start(folder, root, f"{root}/configs/inference.json"))
    assert code == 1
    assert last_line.startswith("1 of 2 scans failed, see ")
    assert "image_3.nii.gz: not a NIfTI file" in last_line
    with (folder / "o" / "cases.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["image_2"]["status"] == "done" and float(rows["image_2"]["seconds"]) > 0
    assert rows["image_3"]["status"] == "failed" and "not a NIfTI" in rows["image_3"]["message"]


def test_masks_lie_on_the_grid_of_their_scan_whatever_its_label(
    phantom: Path, tmp_path: Path
) -> None:
    """The label of a query is never read; the same command gives the same mask."""
    path = phantom / "query" / "image_2.nii.gz"
    scan = nibabel.load(path)
    noise = np.random.default_rng(0).integers(0, 5, scan.shape).astype(np.uint8)
    write_nifti(tmp_path / "noise" / "label_2.nii.gz", noise, scan.affine)
    shutil.copy(path, tmp_path / "noise")
    for output, scans, run_id in (
        ("a", tmp_path / "noise", "evaluating"),
        ("b", path.parent, "run"),
    ):
        places = {"support_dir": phantom / "support", "dataset_dir": scans}
        with contextlib.chdir(REFERENCE):
            in_process(Path("."), tmp_path / output, spatial_size=64, run_id=run_id, **places)
    first, second = (tmp_path / output / "image_2_seg.nii.gz" for output in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    mask = nibabel.load(first)
    assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, scan.affine)
    for field in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(mask.header[field], scan.header[field])
    values = set(np.unique(np.asarray(mask.dataobj)).tolist())
    assert len(values) > 1 and values <= {0, 1, 2, 3, 4}
    assert (tmp_path / "a" / "overlays" / "image_2.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"support_dir": "nowhere"}, "nowhere: there is no such"),
        ({"structures": "spleen"}, "names 'spleen'"),
        ({"support_ids": [4]}, "id 4: no case of this name; use one of: 1."),
        ({"num_shots": 2}, "num_shots: expected 1 to 1"),
        ({"modality": "pet"}, "modality: expected auto, mr or ct, got 'pet'"),
        ({"slice_axis": "oblique"}, "slice_axis: expected auto, axial"),
        ({"support_dir": None, "default_pack": __file__}, "not a usable support pack"),
        ({"weights": "none.pt"}, "none.pt: no such weights file"),
    ],
)
def test_a_mistake_is_one_sentence(settings: dict, words: str, folder: Path) -> None:
    places = {"support_dir": folder / "s", "dataset_dir": folder / "q"}
    with pytest.raises(SystemExit) as raised:
        in_process(REFERENCE, folder / "o", **{**places, **settings})
    message = raised.value.code
    assert isinstance(message, str)  # Python prints it as the last line and exits with 1
    assert words in message and "\n" not in message and message.endswith(".")
    assert not (folder / "o").exists()


def test_a_pack_replaces_the_support_folder(bundle: Path, folder: Path) -> None:
    pack, scans = folder / "pack.safetensors", folder / "q"
    made = {"support_dir": folder / "s", "save_support_pack": pack}
    for output, support in (("o0", made), ("o1", {"support_pack": pack})):
        in_process(bundle, folder / output, dataset_dir=scans, **support)
    first, second = (folder / output / "image_2_seg.nii.gz" for output in ("o0", "o1"))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(SystemExit) as raised:  # other random weights
        in_process(bundle, folder / "o2", dataset_dir=scans, support_pack=pack, seed="$5")
    message = str(raised.value.code)
    assert "other weights" in message and "--support_dir" in message
    assert not (folder / "o2").exists()


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(folder: Path) -> None:
    names = [f"image_{number}" for number in range(2, 22)]
    for number in range(3, 22):
        write_scan(folder / "q", number)
    process = start(folder)
    table = folder / "o" / "cases.csv"
    while process.poll() is None and not table.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, last_line = ended(process)
    assert code == 1
    assert last_line.startswith("interrupted with ") and "of 20 scans done" in last_line
    done = statuses(folder)
    assert 0 < len(done) < 20 and done == [f"{name},done" for name in names[: len(done)]]
    masks = {path: path.stat().st_mtime_ns for path in (folder / "o").glob("*_seg.nii.gz")}
    assert ended(start(folder))[0] == 0
    assert statuses(folder) == [f"{name},done" for name in names]
    kept = [folder / "o" / f"{name}_seg.nii.gz" for name in names[: len(done)]]
    assert all(path.stat().st_mtime_ns == masks[path] for path in kept)
    assert [path.name for path in (folder / "o").rglob(".*")] == [".writing"]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder: Path) -> None:
    for number in range(3, 6):
        write_scan(folder / "q", number)
    several = start(
        folder,
        configs="['configs/inference.json','configs/multi_gpu_inference.json']",
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    )
    code, last_line = ended(several)
    assert code == 0, last_line
    assert statuses(folder) == [f"image_{number},done" for number in range(2, 6)]
    in_process(REFERENCE, folder / "alone", support_dir=folder / "s", dataset_dir=folder / "q")
    masks = sorted((folder / "alone").glob("*_seg.nii.gz"))
    assert len(masks) == 4
    assert all(path.read_bytes() == (folder / "o" / path.name).read_bytes() for path in masks)
