"""Read the configs of a bundle of strangers: in JSON or YAML, within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fsmis_components.data.json_text import DEEPEST, parse_json

# configs have some kilobytes
MOST_BYTES = 2_000_000


def read_text(path: Path) -> Any:
    """Return the content of a file in JSON or, by its ending, YAML.

    Raises:
        ValueError: it is too large, nested too deeply, or grows too large by its aliases.
        json.JSONDecodeError: it is not JSON.
        yaml.YAMLError: it is not YAML.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size / 1e6:.1f} MB are no config")
    text = path.read_text(encoding="utf-8")
    return parse_json(text) if path.suffix == ".json" else _parse_yaml(text)


def _parse_yaml(text: str) -> Any:
    """Parse YAML unless its aliases, which may name each other, unfold to more than a config."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _unfolded(node, {}, DEEPEST) > MOST_BYTES:
            raise ValueError("its aliases unfold to more than a config holds")
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None


def _unfolded(node: yaml.Node, known: dict[int, int], levels: int) -> int:
    """Characters of a node, those of an alias counted at each place where it stands."""
    if levels == 0:  # also of an alias within itself
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value)
    if id(node) not in known:
        children = node.value
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_unfolded(child, known, levels - 1) for child in children)
    return known[id(node)]
