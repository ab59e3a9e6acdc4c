"""A folder in, masks and a bundle that stands alone out; the first fit by the command itself."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from fsmis_components import load_bundle
from fsmis_components.bundle import parsed_config
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import load_image
from fsmis_components.fitting.student_scans import student_grid, student_image, student_shares
from fsmis_components.inferers.clean_up import clean_up
from fsmis_components.inferers.expected_shapes import pack_topologies
from phantom import write_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLE = REPOSITORY / "bundles" / "ssl_alpnet"
LABELLED = "1"
SHAPE = (80, 72, 10)
SIZE = 96  # pixels of the bundle's slices

pytestmark = pytest.mark.slow


def knobs_of(folder: Path, **knobs: object) -> dict[str, object]:
    return {
        "support_dir": str(folder / "labelled"),
        "dataset_dir": str(folder / "scans"),
        "output_dir": str(folder / "fitted"),
        "half_steps": 50,
        "final_steps": 25,
        "batch_size": 4,
        "student_size": 64,
        "spatial_size": SIZE,
        **knobs,
    }


def fit(folder: Path, **knobs: object) -> None:
    """What the command does, in this process."""
    parser = parsed_config(BUNDLE, "fit", knobs_of(folder, **knobs))
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("fit").run()


def fit_by_command(folder: Path, launcher: tuple[str, ...] = (), **knobs: object) -> None:
    configs = [str(BUNDLE / "configs" / "fit.json")]
    if launcher:
        configs.append(str(BUNDLE / "configs" / "multi_gpu_fit.json"))
    command = [sys.executable, "-m", *launcher, "monai.bundle", "run"]
    command += ["--config_file", str(configs), "--bundle_root", str(BUNDLE)]
    for knob, value in knobs_of(folder, **knobs).items():
        command += [f"--{knob}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    subjects = write_dataset(folder / "subjects", count=5, seed=1, shape=SHAPE)
    for path in sorted(subjects.iterdir()):
        name = path.name.split(".")[0]
        kind, _, number = name.partition("_")
        place = "labelled" if number == LABELLED else "scans" if kind == "image" else "truth"
        (folder / place).mkdir(exist_ok=True)
        shutil.copy(path, folder / place)
    # one whose header says nothing of its orientation
    image = nibabel.load(folder / "scans" / "image_4.nii.gz")
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nibabel.save(image, folder / "scans" / "image_4.nii.gz")
    fit_by_command(folder)
    return folder


def labels(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.name: np.asarray(nibabel.load(path).dataobj)
        for path in sorted(folder.glob("*_seg.nii.gz"))
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def bundle_network(bundle: Path) -> torch.nn.Module:
    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    network = config.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt"))
    return network


def student_mask(folder: Path, scan: str) -> np.ndarray:
    """What the last student says of a scan, without the gate."""
    pack = load_bundle(BUNDLE, spatial_size=SIZE).support(folder / "labelled")
    grid = student_grid(pack.grid, load_image(folder / "labelled" / "image_1.nii.gz"), 64)
    student = bundle_network(folder / "fitted" / "bundle")
    view = SliceView(load_image(folder / "scans" / scan), grid)
    shares = student_shares(student, student_image(view, pack.normalisation))
    label = view.to_native_logits(shares).argmax(1).numpy()
    return view.restack(clean_up(label, [1, 2, 3, 4], pack_topologies(pack)))


def test_two_processes_fit_what_one_fits(fitted: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    fit_by_command(fitted, launcher, output_dir=fitted / "together")
    names = ("half_1.pt", "half_2.pt", "student.pt")
    for path in [f"models/{name}" for name in names] + ["bundle/models/model.pt"]:
        assert (fitted / "together" / path).read_bytes() == (fitted / "fitted" / path).read_bytes()
    alone, together = labels(fitted / "fitted"), labels(fitted / "together")
    assert alone.keys() == together.keys()
    assert all((alone[name] == together[name]).all() for name in alone)
    tables = [(fitted / name / "cases.csv").read_text() for name in ("fitted", "together")]
    assert [len(table.splitlines()) for table in tables] == [5, 5]


def test_scans_that_come_later_are_judged_too(fitted: Path) -> None:
    later = fitted / "later"
    later.mkdir()
    for number in (2, 3):  # the same voxels: their masks by the same students are known
        shutil.copy(
            fitted / "scans" / f"image_{number}.nii.gz", later / f"image_{number + 7}.nii.gz"
        )
    weights = (fitted / "fitted" / "models" / "student.pt").read_bytes()
    fit(fitted, new_dir=str(later))
    known, found = labels(fitted / "fitted"), labels(fitted / "fitted" / "new")
    assert sorted(found) == ["image_10_seg.nii.gz", "image_9_seg.nii.gz"]
    assert (found["image_9_seg.nii.gz"] == known["image_2_seg.nii.gz"]).all()
    assert (found["image_10_seg.nii.gz"] == known["image_3_seg.nii.gz"]).all()
    tables = [rows(fitted / "fitted" / name) for name in ("", "new")]
    judged = [row["structure_1_expected_dice"] for row in tables[1]]
    assert judged == [row["structure_1_expected_dice"] for row in tables[0][:2]]
    assert (fitted / "fitted" / "models" / "student.pt").read_bytes() == weights
    with pytest.raises(SystemExit, match="nowhere"):
        fit(fitted, new_dir=str(fitted / "nowhere"))


def test_every_scan_has_a_mask_on_its_grid_and_a_line(fitted: Path) -> None:
    masks = labels(fitted / "fitted")
    assert sorted(masks) == sorted(labels(fitted / "fitted" / "teacher"))
    for name, mask in masks.items():
        scan = nibabel.load(fitted / "scans" / name.replace("_seg", ""))
        assert mask.shape == scan.shape and set(np.unique(mask)) <= {0, 1, 2, 3, 4}
        found = nibabel.load(fitted / "fitted" / name)
        np.testing.assert_array_equal(found.affine, scan.affine)
    assert [row["status"] for row in rows(fitted / "fitted")] == ["done"] * 4
    assert (fitted / "fitted" / "report.html").is_file()
    pictures = {path.stem for path in (fitted / "fitted" / "changes").iterdir()}
    teacher = labels(fitted / "fitted" / "teacher")
    changed = {name for name, mask in masks.items() if (mask != teacher[name]).any()}
    assert pictures == {name.removesuffix("_seg.nii.gz") for name in changed} and pictures


def test_answers_are_between_the_student_and_the_teacher(fitted: Path) -> None:
    teacher = labels(fitted / "fitted" / "teacher")
    moved = 0
    for name, answer in labels(fitted / "fitted").items():
        student = student_mask(fitted, name.replace("_seg", ""))
        assert ((answer == student) | (answer == teacher[name])).mean() > 0.99  # but for clean-up
        nearer, alone = (answer == teacher[name]).sum(), (student == teacher[name]).sum()
        assert nearer >= alone
        moved += int(nearer - alone)
    assert moved > 0


def test_the_same_command_changes_nothing(fitted: Path) -> None:
    files = {
        path: path.stat().st_mtime_ns
        for path in (fitted / "fitted").rglob("*")
        if path.name.endswith(("_seg.nii.gz", "state.pt"))
    }
    fit(fitted)
    with pytest.raises(SystemExit, match="other settings"):
        fit(fitted, uncertainty=True)
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_the_bundle_stands_alone(fitted: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(fitted / "fitted" / "bundle", tmp_path / "bundle")
    config = bundle / "configs" / "inference.json"
    assert "fsmis" not in config.read_text()
    (schema,) = (REPOSITORY / "tools" / "schemas").glob("*.json")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(schema.read_text()))
    places = {"dataset_dir": str(fitted / "scans"), "output_dir": str(tmp_path / "masks")}
    monai.bundle.run(config_file=str(config), bundle_root=str(bundle), **places)
    masks = labels(tmp_path / "masks")
    del masks["image_4_seg.nii.gz"]  # nothing there finds out how a scan without orientation lies
    for name, mask in masks.items():
        # slices are resampled by other code
        other = student_mask(fitted, name.replace("_seg", ""))
        assert mask.shape == other.shape
        assert 2 * ((mask == other) & (other > 0)).sum() > 0.9 * (
            (mask > 0).sum() + (other > 0).sum()
        )


def test_onnx_as_the_page_of_the_bundle_says(fitted: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (pip install -e .[dev])")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    bundle = shutil.copytree(fitted / "fitted" / "bundle", tmp_path / "bundle")
    page = (bundle / "docs" / "README.md").read_text()
    [command] = [
        block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "onnx" in block
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", command], cwd=bundle, env={**os.environ, "PATH": path}, check=True
    )
    student = bundle_network(bundle).eval()
    session = onnxruntime.InferenceSession(
        str(bundle / "student.onnx"), providers=["CPUExecutionProvider"]
    )
    for shape in ((1, 3, 64, 64), (3, 3, 48, 80)):
        slices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        (found,) = session.run(None, {"image": slices.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), student(slices), rtol=0, atol=1e-3)


def test_a_new_scan_a_damaged_one_and_a_corrected_mask_make_another_fit(
    fitted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fit"
    shutil.copytree(fitted, folder)
    write_dataset(folder / "new", count=6, seed=1, shape=SHAPE)
    shutil.copy(folder / "new" / "image_6.nii.gz", folder / "scans")
    (folder / "scans" / "image_9.nii.gz").write_bytes(b"no scan")
    mask = folder / "fitted" / "image_2_seg.nii.gz"
    image = nibabel.load(mask)
    corrected = np.asarray(nibabel.load(folder / "truth" / "label_2.nii.gz").dataobj)
    nibabel.save(nibabel.Nifti1Image(corrected.astype(np.uint8), image.affine), mask)
    with pytest.raises(SystemExit, match="1 of 6 scans failed"):
        fit(folder, corrections_dir=str(folder / "fitted"), half_steps=25)
    assert "image_6_seg.nii.gz" in labels(folder / "fitted")
    np.testing.assert_array_equal(labels(folder / "fitted")[mask.name], corrected)
    table = {row["case"]: row for row in rows(folder / "fitted")}
    assert [name for name, row in table.items() if row["status"] != "done"] == ["image_9"]
    assert "image_9" in table["image_9"]["message"]
    assert not (folder / "fitted" / "errors.log").exists()


def test_few_scans_are_refused_in_a_sentence(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for path in sorted((fitted / "scans").iterdir())[:2]:
        shutil.copy(path, tmp_path / "scans")
    shutil.copytree(fitted / "labelled", tmp_path / "labelled")
    with pytest.raises(SystemExit, match="fitting needs 4") as refused:
        fit(tmp_path)
    assert str(tmp_path / "fitted" / "teacher") in str(refused.value)
