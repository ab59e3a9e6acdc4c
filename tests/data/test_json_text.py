from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.data.json_text import DEEPEST, parse_json

PACKAGE = Path(__file__).resolve().parents[2] / "fsmis_components"


def nested(depth: int, inner: str = "0") -> str:
    return '{"a": [' * (depth // 2) + inner + "]}" * (depth // 2)


def test_reads_what_is_json() -> None:
    assert parse_json('{"a": [1, null, "x"]}') == {"a": [1, None, "x"]}
    assert parse_json(b"7") == 7
    assert parse_json(nested(DEEPEST))


@pytest.mark.parametrize("depth", [DEEPEST + 2, 900, 100_000])
def test_nesting_has_a_limit(depth: int) -> None:
    with pytest.raises(ValueError, match=f"nested deeper than {DEEPEST} levels"):
        parse_json(nested(depth))


@pytest.mark.parametrize("depth", [400, 100_000])
def test_a_nested_datalist_is_one_sentence(depth: int, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(f'{{"training": {nested(depth)}}}')
    with pytest.raises(DataError, match=r"dataset\.json: not a readable JSON file \(nested deeper"):
        find_cases(tmp_path)


def test_files_are_read_within_bounds() -> None:
    """A file is parsed by `parse_json`; json.loads serves what this process has made itself."""
    own_record = "checkpoint.py"  # lies in the folder of a training, and nobody hands it on
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("json_text.py", own_record):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads"):
                assert ast.unparse(node.args[0]).startswith("json.dumps("), path
