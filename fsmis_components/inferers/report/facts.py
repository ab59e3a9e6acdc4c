"""Facts of a run, a free JSON object, as nested HTML tables."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_FOLDED = 6  # more entries than these are folded away


def facts_table(facts: Mapping[str, Any]) -> str:
    """A row per key.

    Args:
        facts: JSON values, nested as they like.
    """
    rows = "\n".join(
        f"<tr><th>{escape(str(key))}</th><td>{_value(value)}</td></tr>"
        for key, value in facts.items()
    )
    return f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _folded(facts_table(value), len(value))
    if isinstance(value, (list, tuple)):
        if all(not isinstance(entry, (Mapping, list, tuple, str)) for entry in value):
            return escape(", ".join(map(str, value))) or "none"
        items = "".join(f"<li>{_value(entry)}</li>" for entry in value)
        return _folded(f'<ul class="plain">{items}</ul>', len(value))
    return escape(str(value))


def _folded(content: str, entries: int) -> str:
    if not entries:
        return "none"
    if entries <= _FOLDED:
        return content
    return f"<details><summary>{entries} entries</summary>{content}</details>"
