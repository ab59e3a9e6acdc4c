"""How much memory a folder run takes for each voxel of a scan."""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import AFFINE, block_image, block_label, write_nifti
from folder_runs import evaluator

SHAPE = (256, 256, 300)
# 4 GiB for 512 x 512 x 1000 voxels, less 0.5 GiB for the libraries and 0.5 GiB for kept features
ALLOWED = 3 * 2**30 / (512 * 512 * 1000)


def bytes_per_voxel(folder: Path) -> float:
    """Segment a small scan, then a large one; return what the large one took at its peak."""
    _run(folder, "small")  # imports and fonts are loaded now
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, see man 5 proc
    before = _resident_peak()
    _run(folder, "large")
    return (_resident_peak() - before) / math.prod(SHAPE)


def _resident_peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 2**10


def _run(folder: Path, name: str) -> None:
    inferer = {"uncertainty": True, "steps": {"registration": True}}
    evaluator(folder, f"{name}_masks", support="support", queries=name, inferer=inferer).run()


def enlarged(values: np.ndarray) -> np.ndarray:
    """The same picture on more voxels: (24, 20, 12) fills (256, 256, 300)."""
    places = [np.arange(new) * old // new for old, new in zip(values.shape, SHAPE, strict=True)]
    return values[np.ix_(*places)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak to be reset here")
def test_no_float_copies_of_the_volume(tmp_path: Path) -> None:
    body = np.pad(np.full((22, 18, 12), 20.0), ((1, 1), (1, 1), (0, 0)))
    image = np.rint(block_image() + body).astype(np.int16)
    write_nifti(tmp_path / "support" / "image_1.nii.gz", image)
    write_nifti(tmp_path / "support" / "label_1.nii.gz", block_label())
    write_nifti(tmp_path / "small" / "image_2.nii.gz", image)
    spacing = np.diag(AFFINE)[:3] * image.shape / SHAPE
    write_nifti(tmp_path / "large" / "image_3.nii.gz", enlarged(image), np.diag([*spacing, 1.0]))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        taken = process.submit(bytes_per_voxel, tmp_path).result()
    # the int16 scan, its labels and their doubt as float32 are 2 + 1 + 4: less were no measurement
    assert 7 < taken < ALLOWED
    output = tmp_path / "large_masks"
    assert nibabel.load(output / "image_3_seg.nii.gz").shape == SHAPE
    assert (output / "overlays" / "image_3.png").exists()
