from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_scans import block_image, block_label, write_nifti
from fake_network import IntensityNetwork
from lib.proposal import Proposal, Proposer
from lib.scans import ScanChecks

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.support import build_support_pack, support_set_of_cases
from fsmis_components.support.support_pack import SupportPack

GEOMETRY = {
    "spatial_size": 64,
    "modality": "mr",
    "slice_axis": "auto",
    "ignore_spacing": False,
}
ENCODING = {"batch_size": 12, "amp": False}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """Three scans, a file that is none and one with a single slice."""
    found = {}
    for seed in (1, 2, 3):
        found[f"scan_{seed}"] = write_nifti(tmp_path / f"{seed}.nii.gz", block_image(seed=seed))
    found["flat"] = write_nifti(tmp_path / "flat.nii.gz", block_image(seed=1)[:, :, :1])
    found["broken"] = tmp_path / "broken.nii.gz"
    found["broken"].write_bytes(b"no scan")
    return {id: str(path) for id, path in found.items()}


@pytest.fixture
def proposer(tmp_path: Path) -> Proposer:
    return Proposer(tmp_path / ".few_shot", GEOMETRY, ENCODING)


def propose(
    proposer: Proposer, paths: dict[str, str], network: IntensityNetwork, **other: Any
) -> Proposal | None:
    asked: dict[str, Any] = {
        "labelled": set(),
        "proposed_before": {},
        "find_pack": lambda: None,
        "seconds": 60.0,
    }
    return proposer.propose(network, paths, **{**asked, **other})


def test_scans_that_cannot_be_used_are_named(paths: dict[str, str]) -> None:
    checks = ScanChecks()
    cases, refused = checks.usable(paths)
    assert [case.name for case in cases] == ["scan_1", "scan_2", "scan_3"]
    assert set(refused) == {"broken", "flat"}
    assert "flat.nii.gz: has one slice only" in refused["flat"]
    assert checks.usable(paths) == (cases, refused)
    write_nifti(Path(paths["broken"]), block_image(seed=9))  # it is looked at again
    Path(paths["scan_1"]).unlink()
    cases, refused = checks.usable(paths)
    assert [case.name for case in cases] == ["broken", "scan_2", "scan_3"]
    assert set(refused) == {"flat", "scan_1"}


def test_a_scan_is_read_once(paths: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    checks = ScanChecks()
    before = checks.usable(paths)
    monkeypatch.delattr("lib.scans.load_image")
    assert checks.usable(paths) == before


def test_proposals_take_turns_until_all_were_made(
    proposer: Proposer, paths: dict[str, str]
) -> None:
    network = IntensityNetwork()
    before: dict[str, float] = {}
    for turn in range(1, 4):
        found = propose(proposer, paths, network, proposed_before=before)
        assert found is not None and found.id not in before
        assert set(found.left_out) == {"broken", "flat"}
        before[found.id] = turn
    again = propose(proposer, paths, network, proposed_before=before)
    assert again is not None and before[again.id] == 1  # the oldest


def test_labelled_scans_are_not_proposed(proposer: Proposer, paths: dict[str, str]) -> None:
    network = IntensityNetwork()
    found = propose(proposer, paths, network, labelled={"scan_1", "scan_3"})
    assert found is not None and found.id == "scan_2"
    assert propose(proposer, paths, network, labelled=set(paths)) is None
    with pytest.raises(DataError, match="no scan that can be read is left to label: .*broken"):
        propose(proposer, paths, network, labelled={"scan_1", "scan_2", "scan_3"})


def test_a_label_makes_no_scan_be_encoded_again(proposer: Proposer, paths: dict[str, str]) -> None:
    network = IntensityNetwork()
    propose(proposer, paths, network)
    assert sum(network.encoded) == 3 * 12
    network.encoded.clear()
    propose(proposer, paths, network, labelled={"scan_2"})
    assert network.encoded == []


def test_slices_are_numbered_as_in_the_file(proposer: Proposer, paths: dict[str, str]) -> None:
    found = propose(proposer, paths, IntensityNetwork(), labelled={"scan_1", "scan_2"})
    assert found is not None and found.axis == "k"
    # six middles of equal parts of twelve slices
    assert found.slices == {"all structures": [1, 3, 5, 7, 9, 11]}


def test_structures_are_looked_for_where_the_support_has_them(
    proposer: Proposer, paths: dict[str, str], tmp_path: Path
) -> None:
    network = IntensityNetwork()
    label = write_nifti(tmp_path / "label.nii.gz", block_label())
    case = Case("scan_1", Path(paths["scan_1"]), label)

    def find_pack() -> SupportPack:
        return build_support_pack(network, support_set_of_cases([case]), **GEOMETRY)

    found = propose(proposer, paths, network, labelled={"scan_1"}, find_pack=find_pack)
    assert found is not None
    for value in (1, 2):
        shown = np.flatnonzero((block_label() == value).any((0, 1)))
        slices = found.slices[f"structure_{value}"]
        assert len(slices) == 3 and set(slices) <= set(shown.tolist())


def test_when_time_is_out_the_scans_that_are_known_are_chosen_from(
    proposer: Proposer, paths: dict[str, str]
) -> None:
    network = IntensityNetwork()
    found = propose(proposer, paths, network, seconds=-1.0)
    assert found is not None and (found.id, found.waiting) == ("scan_1", 2)
    found = propose(proposer, paths, network, seconds=60.0)
    assert found is not None and found.waiting == 0


def test_when_time_is_out_a_scan_without_a_label_is_looked_at_all_the_same(
    proposer: Proposer, paths: dict[str, str]
) -> None:
    network = IntensityNetwork()
    propose(proposer, {"scan_1": paths["scan_1"]}, network)
    found = propose(proposer, paths, network, labelled={"scan_1"}, seconds=-1.0)
    assert found is not None and (found.id, found.waiting) == ("scan_2", 1)
