"""Configs of strangers that would choke a reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_checks import verify
from bundle_files import Bundle


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy" / "configs").mkdir(parents=True)
    return tmp_path / "toy"


def _aliases(toy: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    (toy / "configs" / "bomb.yaml").write_text("\n".join(lines))


def _merged_aliases(toy: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 25):
        lines.append(f"a{level}: &a{level} {{<<: [*a{level - 1}, *a{level - 1}], y: 1}}")
    (toy / "configs" / "bomb.yml").write_text("\n".join(lines))


def _own_alias(toy: Path) -> None:
    (toy / "large_files.yml").write_text("large_files: &a [*a, *a]")


def _deep_json(toy: Path) -> None:
    (toy / "configs" / "metadata.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


def _rather_deep_json(toy: Path) -> None:
    (toy / "configs" / "train.json").write_text('{"a": ' + "[" * 500 + "]" * 500 + "}")


def _deep_yaml(toy: Path) -> None:
    (toy / "configs" / "train.yaml").write_text("[" * 10_000 + "]" * 10_000)


def _huge(toy: Path) -> None:
    (toy / "configs" / "train.json").write_text('{"a": "' + "x" * 3_000_000 + '"}')


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (_aliases, "configs/bomb.yaml cannot be read (its aliases unfold"),
        (_merged_aliases, "configs/bomb.yml cannot be read (its aliases unfold"),
        (_own_alias, "large_files.yml cannot be read (nested deeper"),
        (_deep_json, "configs/metadata.json cannot be read (nested deeper"),
        (_rather_deep_json, "configs/train.json cannot be read (nested deeper"),
        (_deep_yaml, "configs/train.yaml cannot be read (nested deeper"),
        (_huge, "configs/train.json cannot be read (3.0 MB are no config"),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_a_config_made_to_choke_a_reader(
    plant: Callable[[Path], None], said: str, static: bool, toy: Path
):
    plant(toy)
    lines: list[str] = []
    assert not verify(toy, lines.append, static)
    [line] = lines
    assert line.strip().startswith(f"configs: {said}") and line.count("\n") == 0


def test_a_few_aliases_are_fine(toy: Path):
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]"
    (toy / "configs" / "extra.yaml").write_text(text)
    extra = Bundle(toy).configs["extra"]
    assert extra == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
