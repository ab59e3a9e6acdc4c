"""JSON of files and headers from outside: read with bounds, so that a bad one is one sentence."""

from __future__ import annotations

import json
from typing import Any

# deeper than any of our files or of MONAI's; nesting without end exhausts Python's stack
DEEPEST = 100


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or nested deeper than `DEEPEST`.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    level = [content]
    for _ in range(DEEPEST):
        level = [child for node in level for child in _nests(node)]
        if not level:
            return content
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def _nests(node: Any) -> list[Any]:
    """What a node holds that may hold something itself."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in children if isinstance(child, dict | list)]
