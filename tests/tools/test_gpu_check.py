from __future__ import annotations

from pathlib import Path

import pytest

import gpu_check
from fsmis_components.commands.command_line import command
from gpu_check import Step


def test_steps_that_fail_or_take_too_long_are_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        Step("slow", ["-c", "import time; time.sleep(60)"], 0.1, lambda _: "never"),
        Step("wrong", ["-c", "raise SystemExit(3)"], 9, lambda _: "never"),
        Step("fine", ["-c", "print('said')"], 9, lambda _: "well"),
    ]
    monkeypatch.setattr(gpu_check, "_steps", lambda *_: steps)
    output = tmp_path / "gpu"
    words = ["--output", str(output), "--small"]
    assert command(gpu_check.check, words) == 1
    said = capsys.readouterr()
    assert "slow: took more than 2 s" in said.err and "wrong: ended with 3" in said.err
    table = (output / "gpu_check.md").read_text()
    assert "| well |" in table and "never" not in table
    assert (output / "fine.log").read_text() == "said\n"
    assert len(list((output / "scans").glob("image_*"))) == 4  # the fifth is labelled
    assert not list((output / "scans").glob("label_*"))
    assert command(gpu_check.check, words) == 1
    assert "is there already; name another --output" in capsys.readouterr().err
