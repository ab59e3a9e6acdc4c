"""A bundle that is fitted to the scans of each fold: once without those that are tested."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fsmis_components.data.cases import find_cases
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import WHOLE_VOLUME
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.registry import make_subject
from fsmis_components.fitting import FolderFit
from phantom import write_dataset

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "ssl_alpnet"
GEOMETRY = {
    "spatial_size": 64,
    "modality": "auto",
    "slice_axis": "auto",
    "ignore_spacing": False,
}
SHORT = {"half_steps": 2, "final_steps": 2, "student_size": 32}
TESTED, OTHERS = ["1", "2"], ["4", "5", "6", "7"]  # 3 is labelled

pytestmark = pytest.mark.slow


def masks_only(fit: FolderFit) -> None:
    """Leave a mask per scan, as a fit does, without fitting."""
    output = Path(fit.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    for case in find_cases(fit.dataset_dir, labels="never"):
        image = nibabel.load(case.image)
        mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
        path = output / f"{case.stem}_seg.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), path)


def made_by_fit(folder: Path) -> dict[Path, int]:
    files = [*folder.rglob("*_seg.nii.gz"), *folder.rglob("state.pt")]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(
    ("how", "seen"), [("fit", OTHERS), ("fit_transductive", [*TESTED, *OTHERS])]
)
def test_what_is_tested_is_seen_only_where_the_name_says_so(
    tmp_path: Path, how: str, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "fit_transductive":
        monkeypatch.setattr(FolderFit, "run", masks_only)
    folder = write_dataset(tmp_path / "d", count=7, seed=1, shape=(64, 56, 8))
    cases = find_cases(folder, labels="required")
    geometry = {key: GEOMETRY[key] for key in ("spatial_size", "slice_axis", "ignore_spacing")}
    plan = Plan(cases, RULES["ep1-alp"], [0], num_folds=3, labelled=["all"], geometry=geometry)
    subject = make_subject(f"{BUNDLE}:{how}", GEOMETRY, SHORT)
    output = tmp_path / "o"
    records, failures = run_benchmark([subject], plan, output, progress=False)
    assert not failures
    assert [record.rows[0].case for record in records] == TESTED
    [kept] = (output / "kept").glob("*/fold0_shots1_choice0")
    listed = json.loads((kept / "scans" / "dataset.json").read_text())["training"]
    named = [{"image": str(folder / f"image_{name}.nii.gz")} for name in seen]
    assert sorted(listed, key=str) == named
    masks = {path.name for path in kept.rglob("*_seg.nii.gz")}
    assert masks == {f"image_{name}_seg.nii.gz" for name in seen}
    for record in records:
        mask = np.asarray(nibabel.load(output / record.masks[f"{WHOLE_VOLUME}/all"]).dataobj)
        assert mask.any()
        if how == "fit_transductive":
            fitted = nibabel.load(kept / "fitted" / f"image_{record.rows[0].case}_seg.nii.gz")
            np.testing.assert_array_equal(mask, np.asarray(fitted.dataobj))
    if how == "fit":  # stopped before a case was scored, the fit is taken up
        before = made_by_fit(kept)
        for path in (output / "cases").rglob("[0-9].json"):
            path.unlink()
        again, _ = run_benchmark([subject], plan, output, progress=False)
        assert [record.rows for record in again] == [record.rows for record in records]
        assert made_by_fit(kept) == before
