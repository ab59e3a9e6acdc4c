"""Knobs as they arrive from a command line that Fire reads."""

from __future__ import annotations

import sys

import pytest
from fire.parser import DefaultParseValue

from fsmis_components.data.knobs import check_knobs


def arrive(monkeypatch: pytest.MonkeyPatch, *words: str, **others: object) -> None:
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
    typed = words[-1].partition("=")[2] or words[-1]
    check_knobs({"dataset_dir": DefaultParseValue(typed)}, **others)


@pytest.mark.parametrize(
    "text",
    [
        *("20241128", "7", "1e5", "0x10", "1_000", "True", "-5", "...", "(a)", "{a}", "[a]", "a,b"),
        *("scans#2", "{a: 1}", "Ko\u0308ln"),  # a decomposed letter, as macOS writes it
    ],
)
@pytest.mark.parametrize("form", ["--dataset_dir {}", "--dataset_dir={}", "--dataset-dir {}"])
def test_a_path_that_fire_changes_is_refused(
    text: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word.format(text) for word in form.split()]
    with pytest.raises(SystemExit, match=r"does not arrive as it is written") as raised:
        arrive(monkeypatch, *words)
    assert f"write ./{text} " in str(raised.value.code)
    arrive(monkeypatch, "--dataset_dir", f"./{text}")  # what the sentence advises


@pytest.mark.parametrize("text", ["2024-11-28", "scans", "a b", "'20241128'", "007", "../x", "a.b"])
def test_a_path_that_arrives_as_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(monkeypatch, "--output_dir", "7", "--dataset_dir", text)


@pytest.mark.parametrize("value", [True, 20241128, 1e5, ["a"], ("a", "b"), {"a": 1}, b"a"])
def test_a_value_that_is_no_path(value: object) -> None:
    with pytest.raises(SystemExit, match=r"--support_dir: expected the path .* needs \./ in front"):
        check_knobs({"support_dir": value})


@pytest.mark.parametrize("value", ["false", "true", "no", "", 2, None, []])
def test_a_switch_that_is_neither_on_nor_off(value: object) -> None:
    with pytest.raises(SystemExit, match="--uncertainty: expected True or False"):
        check_knobs({}, {"clean_up": True, "self_test": 0, "uncertainty": value})
