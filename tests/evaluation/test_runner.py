from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import ABSENT, UNDEFINED
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects import Group, Subject
from fsmis_components.evaluation.subjects.bundle import NetworkSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.support import SupportSet


def dataset(folder: Path, count: int = 6) -> Path:
    for number in range(1, count + 1):
        write_scan(folder, number, block_label())
    return folder


def plan_of(folder: Path, **changes: object) -> Plan:
    cases = find_cases(folder, labels="required")
    plan = Plan(cases, RULES["ep1-alp"], [0, 1], num_folds=3, geometry={"spatial_size": 24})
    return replace(plan, **changes)


def network() -> NetworkSubject:
    return NetworkSubject(IntensityNetwork(), geometry={"spatial_size": 24})


def run(subjects: list[Subject], plan: Plan, output: Path):  # noqa: ANN201
    return run_benchmark(subjects, plan, output, progress=False)


class Counting(MaskCopy):
    """A floor that counts its calls and may stop like a person who presses Ctrl-C."""

    def __init__(self, stop_after: int = 1000) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.stop_after = stop_after

    def predict_masks(
        self, support: SupportSet, query_image: Volume, grid: SliceGrid
    ) -> np.ndarray:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(query_image.title)
        return super().predict_masks(support, query_image, grid)


def test_every_protocol_of_every_case(tmp_path: Path) -> None:
    records, failures = run(
        [network()], plan_of(dataset(tmp_path / "d"), folds=[0]), tmp_path / "o"
    )
    assert not failures
    assert [record.rows[0].case for record in records] == ["1", "2"]
    assert {row.support for row in records[0].rows} == {"3"}
    kinds = [(row.labelled, row.protocol, row.structure) for row in records[0].rows]
    names = ("structure_1", "structure_2")
    assert kinds == [
        (labelled, protocol, name)
        for labelled, protocols in (
            ("sections", ("ep1-alp", "oracle", "wv")),
            ("all", ("oracle", "wv")),
        )
        for protocol in protocols
        for name in names
    ]
    assert all(row.dice == 100 for row in records[0].rows if row.protocol == "wv")
    assert set(records[0].masks) == {"wv/sections", "wv/all"}
    mask = nibabel.load(tmp_path / "o" / records[0].masks["wv/sections"])
    assert np.array_equal(np.asarray(mask.dataobj), block_label())
    assert np.array_equal(mask.affine, nibabel.load(records[0].image).affine)
    assert Path(records[0].image).is_absolute()  # a report may be made from another folder


def test_the_whole_volume_does_not_depend_on_query_labels(tmp_path: Path) -> None:
    """The first advantage of the project: whatever lies beside a query changes no voxel."""
    noise = np.random.default_rng(0).integers(0, 3, block_label().shape).astype(np.uint8)
    found = []
    for name, label in (("true", block_label()), ("noise", noise)):
        folder = dataset(tmp_path / name)
        write_nifti(folder / "label_1.nii.gz", label)
        plan = plan_of(folder, folds=[0], labelled=["sections"])
        records, failures = run([network()], plan, tmp_path / "o" / name)
        assert not failures
        mask = tmp_path / "o" / name / records[0].masks["wv/sections"]
        found.append(np.asarray(nibabel.load(mask).dataobj))
    assert np.array_equal(*found) and found[0].any()


def test_goes_on_after_an_interruption(tmp_path: Path) -> None:
    plan = plan_of(dataset(tmp_path / "d"), labelled=["sections"])
    stopped = Counting(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run([stopped], plan, tmp_path / "o")
    rest = Counting()
    resumed, _ = run([rest], plan, tmp_path / "o")
    assert (len(stopped.calls), len(rest.calls)) == (3, 1)
    whole, _ = run([Counting()], plan, tmp_path / "whole")
    strip = [replace(record, seconds=0) for record in resumed]
    assert strip == [replace(record, seconds=0) for record in whole]
    assert not list((tmp_path / "o").rglob("*tmp*"))


def test_a_missing_mask_or_a_changed_scan_is_computed_again(tmp_path: Path) -> None:
    plan = plan_of(dataset(tmp_path / "d"), folds=[0], labelled=["sections"])
    run([Counting()], plan, tmp_path / "o")
    mask = next((tmp_path / "o").rglob("2_wv_sections.nii.gz"))
    whole = mask.read_bytes()
    mask.unlink()
    write_scan(tmp_path / "d", 1, np.roll(block_label(), 1, axis=0))
    again = Counting()
    run([again], plan, tmp_path / "o")
    assert [Path(title).name for title in again.calls] == ["image_1.nii.gz", "image_2.nii.gz"]
    assert mask.read_bytes() == whole


def test_other_weights_are_refused(tmp_path: Path) -> None:
    plan = plan_of(dataset(tmp_path / "d"), folds=[0])

    class Weighted(MaskCopy):
        def __init__(self, weights: str) -> None:
            super().__init__()
            self.weights = weights

        def identity(self, fold: int, group: Group) -> dict[str, str]:
            return {"weights": self.weights}

    run([Weighted("a")], plan, tmp_path / "o")
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="differ in subject; choose another --output_dir"):
        run([Weighted("b")], plan, tmp_path / "o")
    assert before == {path: path.read_bytes() for path in before}


def test_whatever_fails_in_a_case_the_others_go_on(tmp_path: Path) -> None:
    class Fails(MaskCopy):
        def predict_masks(self, support: SupportSet, query_image: Volume, *grid: SliceGrid):
            if "image_2" in query_image.title:
                raise OverflowError("too\nlarge")
            return super().predict_masks(support, query_image, *grid)

    folder = dataset(tmp_path / "d")
    write_nifti(folder / "label_1.nii.gz", block_label()[:-1])
    plan = plan_of(folder, labelled=["sections"])
    (folder / "image_4.nii.gz").unlink()
    records, failures = run([Fails()], plan, tmp_path / "o")
    assert [record.rows[0].case for record in records] == ["3"]
    shapes, unforeseen, missing = failures
    assert "case 1" in shapes and "their shapes differ" in shapes and "image_4.nii.gz" in missing
    assert "image_2.nii.gz: OverflowError: too large" in unforeseen
    assert "Traceback" in (tmp_path / "o" / "errors.log").read_text()


def test_absent_structures_are_scored_and_a_fold_without_one_is_told(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d")
    for number in (1, 2):
        write_scan(folder, number, block_label({1: 1}))
    records, failures = run([MaskCopy()], plan_of(folder, folds=[0]), tmp_path / "o")
    rows = {(row.protocol, row.structure): row for row in records[0].rows[:6]}
    ep1, blind = rows["ep1-alp", "structure_2"], rows["wv", "structure_2"]
    assert ep1.status == UNDEFINED and np.isnan(ep1.dice)
    assert (blind.status, blind.dice) == (ABSENT, 0) and blind.false_positive_ml > 0
    assert len(failures) == 1
    assert "fold 0: no query holds structure_2" in failures[0]


def test_groups_of_structures_are_segmented_by_themselves(tmp_path: Path) -> None:
    class Grouped(MaskCopy):
        loaded: list[tuple[int, Group]] = []

        def groups(self) -> list[Group]:
            return [(2,), (1,)]

        def load(self, fold: int, group: Group) -> None:
            self.loaded.append((fold, group))

    subject = Grouped()
    records, _ = run([subject], plan_of(dataset(tmp_path / "d"), folds=[0]), tmp_path / "o")
    assert subject.loaded == [(0, (2,)), (0, (1,))]
    assert [{row.value for row in record.rows} for record in records] == [{2}, {2}, {1}, {1}]


def test_a_subject_that_cannot_use_the_labelled_slices_is_told(tmp_path: Path) -> None:
    class Whole(MaskCopy):
        labelled = ("all",)

    plan = plan_of(dataset(tmp_path / "d"), folds=[0], labelled=["sections"])
    records, [failure] = run([Whole()], plan, tmp_path / "o")
    assert not records and failure.endswith("needs other labelled slices; add all to --labelled.")


def test_rejects_two_subjects_of_one_name(tmp_path: Path) -> None:
    plan = plan_of(dataset(tmp_path / "d"), folds=[0])
    with pytest.raises(DataError, match="two are called mask_copy"):
        run([MaskCopy(), MaskCopy()], plan, tmp_path / "o")
