from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan

from fsmis_components.data.cases import find_cases
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import load_image
from fsmis_components.evaluation.protocols import RULES, with_labelled_slices
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.support import load_support_set

GRID = SliceGrid(2, 1.0, 24)


def growing_label() -> np.ndarray:
    """One structure in slices 3..8 of 12, its width the number of the slice."""
    label = np.zeros((24, 20, 12), np.uint8)
    for z in range(3, 9):
        label[:z, :2, z] = 1
    return label


def widths(label: np.ndarray) -> list[int]:
    return label[:, 0].sum(0).tolist()


def test_told_of_the_extent(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, growing_label())
    query = load_image(tmp_path / "image_1.nii.gz")
    present = np.zeros((12, 1), bool)
    present[1:4] = True
    sections = RULES["ep1-alp"].sections(present)
    for slices, expected in (("sections", [4, 6, 8]), ("all", [4, 6, 8])):
        support = with_labelled_slices(load_support_set(tmp_path), GRID, slices)  # type: ignore[arg-type]
        masks = MaskCopy().predict_told(support, query, GRID, sections, overlap=True)
        assert masks[:, 0, :, 0].sum(1).tolist() == [0, *expected, *[0] * 8]


def test_structures_may_overlap_except_in_a_label_map(tmp_path: Path) -> None:
    label = np.zeros((24, 20, 12), np.uint8)
    label[0:8, :, 0:6] = 1
    label[4:12, :, 6:12] = 2
    write_scan(tmp_path, 1, label)
    support = with_labelled_slices(load_support_set(tmp_path), GRID, "sections")
    query = load_image(tmp_path / "image_1.nii.gz")
    sections = RULES["ep1-alp"].sections(np.ones((12, 2), bool))
    for masks in (
        MaskCopy().predict_masks(support, query, GRID),
        MaskCopy().predict_told(support, query, GRID, sections, overlap=False),
    ):
        assert masks.sum((0, 2, 3)).tolist() == [8 * 20 * 12, 8 * 20 * 12]
    copied = MaskCopy().predict(support, query)
    assert [(copied == value).sum() for value in (1, 2)] == [4 * 20 * 12, 8 * 20 * 12]


def test_a_query_of_another_orientation_and_size(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label())
    support = load_support_set(tmp_path)
    # stored as (S, L, A): slices along the first axis, left-right backwards
    affine = np.array([[0, -1.0, 0, 0], [0, 0, 1.0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1.0]])
    image = np.zeros((12, 30, 20), np.float32)
    query = load_image(write_nifti(tmp_path / "q" / "image_2.nii.gz", image, affine))
    assert nibabel.aff2axcodes(query.affine) == ("S", "L", "A")
    turned = MaskCopy().predict(support, query)[:, ::-1].transpose(1, 2, 0)  # to (R, A, S)
    plain = MaskCopy().predict(support, load_image(tmp_path / "image_1.nii.gz"))
    assert np.array_equal(turned[3:27], plain)
    assert not turned[:3].any() and not turned[27:].any()


@pytest.mark.slow
def test_reproduces_the_floors_measured_elsewhere(fsmis_data_dir: Path, tmp_path: Path) -> None:
    """CHAOS-T2, supp_idx 2: both measured outside this repository, from labels alone."""
    cases = find_cases(fsmis_data_dir / "chaos_t2", labels="required")
    plan = Plan(cases, RULES["ep1-qnet"], range(5), labelled=["sections"])
    records, failures = run_benchmark([MaskCopy()], plan, tmp_path, progress=False)
    assert not failures
    for protocol, published in (("ep1-qnet", 48.6), ("wv", 30.8)):
        dice = [row.dice for record in records for row in record.rows if row.protocol == protocol]
        assert len(dice) == 5 * 4 * 4
        assert np.mean(dice) == pytest.approx(published, abs=0.2)
