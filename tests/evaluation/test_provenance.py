from __future__ import annotations

from pathlib import Path

from fsmis_components.data.cases import Case
from fsmis_components.evaluation.provenance import (
    case_hash,
    code_hash,
    joined_hash,
    surroundings,
)


def test_a_case_is_its_image_and_its_label(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    case = Case("1", tmp_path / "a", tmp_path / "b")
    assert case_hash(case) != case_hash(Case("1", tmp_path / "a"))
    (tmp_path / "b").write_bytes(b"c")
    assert case_hash(case) != case_hash(Case("1", tmp_path / "a", tmp_path / "a"))


def test_joined_hash_does_not_depend_on_the_order() -> None:
    assert joined_hash({"a": "1", "b": "2"}) == joined_hash({"b": "2", "a": "1"})
    assert joined_hash({"a": "1", "b": "2"}) != joined_hash({"a": "2", "b": "1"})


def test_code_and_surroundings() -> None:
    assert code_hash() == code_hash() and len(code_hash()) == 64
    found = surroundings()
    assert found["machine"] and set(found["versions"]) >= {"torch", "monai", "numpy"}  # type: ignore[call-overload]
