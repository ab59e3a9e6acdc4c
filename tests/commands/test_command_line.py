from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fsmis_components.commands.command_line import command, listed, pairs
from fsmis_components.data.errors import DataError

calls: list[Any] = []


def paint(
    folder: Path,
    colours: Any = "red",
    wet: bool = False,
    knobs: str | None = None,
    coats: int | None = 1,
) -> list:
    """Paint a folder.

    Args:
        folder: what is painted.
        colours: one or several.
    """
    calls.append((folder, listed(colours), wet, pairs(knobs, "knobs")))
    if folder.name == "gone":
        raise DataError("gone: there is no such folder; name another.")
    return ["one failure."] if wet else []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.mark.parametrize("words", [["red", "blue"], ["red,blue"]])
def test_several_values_in_both_ways(words: list[str]) -> None:
    assert command(paint, ["1e3#", "--colours", *words, "--knobs", "a=[1, 2]", "b=1e-3"]) == 0
    # a folder keeps its name, also where it looks like a number
    assert calls == [(Path("1e3#"), ["red", "blue"], False, {"a": [1, 2], "b": "1e-3"})]


def test_a_switch_takes_no_value() -> None:
    for words in (["--wet", "wall"], ["wall", "--wet"], ["wall", "--wet", "--colours", "red"]):
        assert command(paint, words) == 1
        assert calls.pop()[:3] == (Path("wall"), ["red"], True)


def test_subcommands_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command({"paint": paint}, ["paint", "wall", "--wet"]) == 1
    assert capsys.readouterr().err == "one failure.\n"
    assert command({"paint": paint}, ["paint", "gone"]) == 1
    assert capsys.readouterr().err == "gone: there is no such folder; name another.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required argument: folder"),
        (["wall", "--colour", "red"], "Could not consume arg: --colour"),
        (["wall", "--knobs", "epochs"], "--knobs: expected KNOB=VALUE, got epochs"),
        (["wall", "--knobs", "a={"], "--knobs a: { cannot be read"),
        (["wall", "--coats", "many"], "--coats: expected a number, got many"),
        (["wall", "--coats", "1", "2"], "--coats: expected a number"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(paint, words) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not calls


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(paint, ["--help"]) == 0
    said = capsys.readouterr().out
    assert "what is painted." in said and "--colours" in said and not calls
    assert "FOLDER <flags>" in said and "GROUP" not in said


def test_a_reader_of_help_may_have_enough_of_it() -> None:
    code = "import sys; from fsmis_components.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "segment", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
