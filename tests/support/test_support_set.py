from __future__ import annotations

from pathlib import Path

import pytest
from block_scans import block_label, write_scan

from fsmis_components.data.errors import DataError
from fsmis_components.support.support_set import choose_structures, load_support_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scan(tmp_path, 2, block_label({1: 5}))
    write_scan(tmp_path, 10, block_label({1: 5, 2: 7}))
    return tmp_path


def test_values_of_all_scans_are_structures(folder: Path) -> None:
    support = load_support_set(folder)
    assert [scan.name for scan in support.scans] == ["2", "10"]
    assert [(s.name, s.value) for s in support.structures] == [
        ("structure_5", 5),
        ("structure_7", 7),
    ]
    assert len({s.colour for s in support.structures}) == 2


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (7, [("structure_7", 7)]),
        ("7,liver", [("structure_7", 7), ("liver", 5)]),
        (["LIVER"], [("liver", 5)]),
        ({"left kidney": 7}, [("left kidney", 7)]),
    ],
)
def test_structures_by_value_name_or_mapping(wanted: object, expected: list) -> None:
    chosen = choose_structures(wanted, [5, 7], {5: "liver"}, "S")  # type: ignore[arg-type]
    assert [(s.name, s.value) for s in chosen] == expected


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([9], "structure structure_9 (label value 9) is in no support scan"),
        (["heart"], "names 'heart', which is not among liver, structure_7"),
        ([5, "liver"], "named twice"),
        (["²"], "names '²', which is not among liver, structure_7"),
        ([], "at least one"),
    ],
)
def test_rejects_structures(wanted: list, words: str) -> None:
    with pytest.raises(DataError) as raised:
        choose_structures(wanted, [5, 7], {5: "liver"}, "S")
    assert words in str(raised.value)


def test_support_ids_choose_and_order_scans(folder: Path) -> None:
    write_scan(folder, 3)  # unlabelled, so only fine because it is not named
    support = load_support_set(folder, support_ids=[10, "2"])
    assert [scan.name for scan in support.scans] == ["10", "2"]
    with pytest.raises(DataError, match="needs a label"):
        load_support_set(folder, support_ids=[3])
    with pytest.raises(DataError, match="image_3"):
        load_support_set(folder)


def test_rejects_empty_labels(tmp_path: Path) -> None:
    write_scan(tmp_path, 1, block_label() * 0)
    with pytest.raises(DataError, match="every support label is empty"):
        load_support_set(tmp_path)
