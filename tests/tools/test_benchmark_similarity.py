from __future__ import annotations

import pytest

from benchmark_similarity import compare
from fsmis_components.commands.command_line import command


def test_the_table_and_why_a_backend_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--side", "4", "--channels", "2", "--prototypes", "3", "--seconds", "0.001"]
    assert command(compare, [*words, "--contenders", "streamed", "attention", "triton"]) == 0
    said = capsys.readouterr().out
    assert "|  streamed  |  attention" in said and "forward + backward, P = 3" in said
    assert "triton, P = 3: " in said and "the tensors are on c" in said
