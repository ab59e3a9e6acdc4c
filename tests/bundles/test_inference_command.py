"""The inference command as users type it; small phantoms, an untrained network."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan
from bundle_folders import REFERENCE, REPOSITORY
from monai.bundle import run

# an untrained network on small slices: what is tested here does not depend on how good it is
SMALL = {"weights": "none", "spatial_size": 64, "device": "cpu"}


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    last_line: str
    output: Path

    @property
    def mask(self) -> Path:
        return self.output / "image_2_seg.nii.gz"


def command(config: str, root: str, *run_id: str, **settings: object) -> list[str]:
    line = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *run_id]
    line += ["--config_file", config, "--bundle_root", root]
    for key, value in {**SMALL, **settings}.items():
        line += [f"--{key}", str(value)]
    return line


@pytest.fixture(scope="module")
def finished(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Some commands at once, since each spends its time on imports."""
    base = tmp_path_factory.mktemp("commands")
    for name in ("labelled", "noise", "deleted"):
        shutil.copytree(phantom / "query", base / name)
    label = phantom / "scoring" / "label_2.nii.gz"
    shutil.copy(label, base / "labelled")
    (base / "labelled" / "image_3.nii.gz").write_bytes(b"no NIfTI")
    scan = nibabel.load(label)
    noise = np.random.default_rng(0).integers(0, 5, scan.shape).astype(np.uint8)
    write_nifti(base / "noise" / "label_2.nii.gz", noise, scan.affine)

    root = str(REFERENCE.relative_to(REPOSITORY))
    from_repository = (f"{root}/configs/inference.json", root)
    from_bundle = ("configs/inference.json", ".")
    plans = {
        "labelled": (REPOSITORY, from_repository, []),
        "noise": (REFERENCE, from_bundle, ["evaluating"]),
        "deleted": (REFERENCE, from_bundle, []),
    }
    running = {}
    for name, (folder, place, run_id) in plans.items():
        places = {"dataset_dir": base / name, "output_dir": base / f"o_{name}"}
        line = command(*place, *run_id, support_dir=phantom / "support", **places)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running[name] = subprocess.Popen(
            line,
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    ended = {}
    for name, process in running.items():
        text = process.communicate(timeout=600)[0]
        last_line = text.rstrip().splitlines()[-1]
        ended[name] = Finished(process.returncode, last_line, base / f"o_{name}")
    return ended


def test_a_bad_scan_ends_the_command_with_its_sentence(finished: dict[str, Finished]) -> None:
    done = finished["labelled"]
    assert done.code == 1
    assert done.last_line.startswith("1 of 2 scans failed, see ")
    assert "image_3.nii.gz: not a NIfTI file" in done.last_line
    with (done.output / "cases.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert rows["image_2"]["status"] == "done" and float(rows["image_2"]["seconds"]) > 0
    assert rows["image_3"]["status"] == "failed" and "not a NIfTI" in rows["image_3"]["message"]


def test_both_run_ids_from_both_folders(finished: dict[str, Finished]) -> None:
    for name in finished.keys() - {"labelled"}:
        assert finished[name].code == 0, finished[name].last_line
        assert (finished[name].output / "overlays" / "image_2.png").stat().st_size > 1000


def test_query_labels_are_never_read(finished: dict[str, Finished]) -> None:
    masks = {done.mask.read_bytes() for done in finished.values()}
    assert len(masks) == 1  # and so the same command gives the same masks


def test_mask_lies_on_the_grid_of_its_scan(finished: dict[str, Finished], phantom: Path) -> None:
    scan = nibabel.load(phantom / "query" / "image_2.nii.gz")
    mask = nibabel.load(finished["deleted"].mask)
    assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, scan.affine)
    for field in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(mask.header[field], scan.header[field])
    values = set(np.unique(np.asarray(mask.dataobj)).tolist())
    assert len(values) > 1 and values <= {0, 1, 2, 3, 4}


def _good(folder: Path) -> None:
    write_scan(folder / "s", 1, block_label())
    write_scan(folder / "q", 2)


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
def test_a_mistake_is_one_sentence(settings: dict, words: str, tmp_path: Path) -> None:
    _good(tmp_path)
    places = {"support_dir": str(tmp_path / "s"), "dataset_dir": str(tmp_path / "q")}
    with pytest.raises(SystemExit) as raised:
        run(
            config_file=str(REFERENCE / "configs" / "inference.json"),
            logging_file=False,
            bundle_root=str(REFERENCE),
            output_dir=str(tmp_path / "o"),
            **{**SMALL, "spatial_size": 32, **places, **settings},
        )
    message = raised.value.code
    assert isinstance(message, str)  # Python prints it as the last line and exits with 1
    assert words in message and "\n" not in message and message.endswith(".")
    assert not (tmp_path / "o").exists()


def test_a_pack_replaces_the_support_folder(bundle: Path, tmp_path: Path) -> None:
    _good(tmp_path)
    pack = tmp_path / "pack.safetensors"
    masks = []
    for number, settings in enumerate(
        ({"support_dir": tmp_path / "s", "save_support_pack": pack}, {"support_pack": pack})
    ):
        output = tmp_path / f"o{number}"
        _run(bundle, tmp_path, output, settings)
        masks.append((output / "image_2_seg.nii.gz").read_bytes())
    assert masks[0] == masks[1]
    with pytest.raises(SystemExit) as raised:
        # other random weights
        _run(bundle, tmp_path, tmp_path / "o2", {"support_pack": pack, "seed": "$5"})
    message = str(raised.value.code)
    assert "other weights" in message and "--support_dir" in message
    assert not (tmp_path / "o2").exists()


def _run(bundle: Path, folder: Path, output: Path, settings: dict) -> None:
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(folder / "q"),
        output_dir=str(output),
        **{**SMALL, "spatial_size": 32, **{k: str(v) for k, v in settings.items()}},
    )
