from __future__ import annotations

import pytest

from fsmis_components.data.json_text import DEEPEST, parse_json


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
