import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from block_scans import block_label, write_nifti, write_scan
from fake_network import IntensityNetwork
from folder_runs import evaluator, read_cases, sentence

from fsmis_components.support import Corrections, FeatureCache, SupportSource

CORRECTED = block_label({1: 1})  # structure 2 is not there, says the user


@pytest.fixture
def root(tmp_path: Path, blank_overlays: None) -> Path:
    write_scan(tmp_path / "s", 1, block_label())
    for number in (2, 3, 4):
        write_scan(tmp_path / "q", number)
    return tmp_path


def run(
    root: Path, corrections: str | None = None, output: str = "o", **settings: object
) -> list[int]:
    """Segment the folder; returns how many slices were encoded at a time."""
    network = IntensityNetwork()
    cache = FeatureCache(root / "features")
    corrected = Corrections(corrections and root / corrections, root / "q")
    support = SupportSource(root / "s", spatial_size=24, corrections=corrected, cache=cache)
    # without z-matching every mask is known
    inferer = {"cache": cache, "steps": {"z_matching": False}, **settings}
    evaluator(
        root, output, support=support, network=network, inferer=inferer, corrections=corrected
    ).run()
    return network.encoded


def mask(root: Path, number: int, output: str = "o") -> Path:
    return root / output / f"image_{number}_seg.nii.gz"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_a_mask_corrected_in_place_joins_the_support(root: Path) -> None:
    assert sum(run(root)) == 4 * 12 + 3 * 6  # with slices of the support, mirrored
    write_nifti(mask(root, 3), CORRECTED)
    corrected = mask(root, 3).read_bytes()
    before = mask(root, 2).stat().st_mtime_ns
    assert run(root, "o") == []  # no slice is encoded twice
    assert mask(root, 3).read_bytes() == corrected
    assert mask(root, 2).stat().st_mtime_ns > before  # segmented again
    record = json.loads((root / "o" / "run.json").read_text())
    assert record["masks"]["image_3"] == "" and record["masks"]["image_2"]
    rows = {row["case"]: row for row in read_cases(root / "o")}
    assert rows["image_3"]["status"] == "done"
    assert float(rows["image_3"]["structure_1_ml"]) == pytest.approx(1.728)
    assert float(rows["image_3"]["structure_2_ml"]) == 0
    # a second correction: the first one stays
    write_nifti(mask(root, 2), block_label())
    run(root, "o")
    assert mask(root, 3).read_bytes() == corrected
    # the same command again finds everything done
    former = mask(root, 4).stat().st_mtime_ns
    run(root, "o")
    assert mask(root, 4).stat().st_mtime_ns == former


def test_corrected_masks_of_another_folder_become_results(root: Path) -> None:
    write_nifti(root / "c" / "image_2.nii.gz", CORRECTED)
    run(root, "c", "new", uncertainty=True)
    np.testing.assert_array_equal(voxels(mask(root, 2, "new")), CORRECTED)
    assert not voxels(root / "new" / "image_2_uncertainty.nii.gz").any()
    assert (root / "new" / "overlays" / "image_2.png").is_file()
    np.testing.assert_array_equal(voxels(mask(root, 4, "new")), block_label())


def test_no_mask_of_a_person_is_overwritten(root: Path) -> None:
    run(root)
    write_nifti(root / "c" / "image_2.nii.gz", CORRECTED)
    write_nifti(mask(root, 4), CORRECTED)  # corrected too, but not in the folder that is named
    assert "image_4_seg.nii.gz: is not as the former run wrote it" in sentence(
        lambda: run(root, "c")
    )
    np.testing.assert_array_equal(voxels(mask(root, 4)), CORRECTED)


def test_a_correction_that_cannot_be_used_fails_alone_or_stops_the_run(root: Path) -> None:
    write_nifti(root / "c" / "image_2.nii.gz", CORRECTED[:-1])
    assert "image_2.nii.gz" in sentence(lambda: run(root, "c"))
    assert not mask(root, 3).exists()  # others would be segmented by less support than was meant
