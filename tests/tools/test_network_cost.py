from __future__ import annotations

from pathlib import Path

import pytest

import network_cost
from fsmis_components.evaluation.part_costs import PartCost

BUNDLES = Path(__file__).parents[2] / "bundles"


def test_table_of_two_sizes() -> None:
    small = [PartCost("a", 1_500_000, 2_000_000_000, 0), PartCost("b", 0, 0, 4_000_000)]
    large = [PartCost("b", 3_000_000, 0, 7_000_000_000)]
    lines = network_cost.cost_table({"small": small, "large": large}).splitlines()
    assert lines[2:] == [
        "| a | 1.500 | 2.000 | 0.000 | - | - | - |",
        "| b | 0.000 | 0.000 | 0.004 | 3.000 | 0.000 | 7.000 |",
        "| **sum** | **1.500** | **2.000** | **0.004** | **3.000** | **0.000** | **7.000** |",
    ]


def test_papers_size_of_cow_agrees_with_the_released_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a parameter in memory: the paper's network has 115 million."""
    output = tmp_path / "cost.md"
    assert network_cost.main([str(BUNDLES / "cow"), "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert output.read_text() == text
    compared = text[text.index("released code") :]
    table = [line.split("|") for line in compared.splitlines() if line.startswith("| ")]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:]] for cells in table}
    for title in ("prototype mining", "fusion"):
        own, released, *_ = rows[f"{title}, fore- + background"]
        assert own == released
    assert rows["self-prediction decoder"][:2] == ["30.15", "30.15"]
    # what the released encoder has besides: layer4, the classifier, a second reduction, a threshold
    unused = 14.964736 + 2.049 + 2048 * 512 / 1e6 + 1001 / 1e6
    assert float(rows["encoder, one slice"][0]) + unused == pytest.approx(46.1, abs=0.05)


def test_another_size_has_no_released_counterpart(capsys: pytest.CaptureFixture[str]) -> None:
    assert network_cost.main([str(BUNDLES / "cow"), "--spatial_size", "64"]) == 0
    text = capsys.readouterr().out
    assert "## cow, slices of 64 x 64" in text and "paper: parameters (M)" in text
    assert "released" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "there is no such file"),
        ([str(BUNDLES / "cow"), "--config", "nothing"], "nothing.json: there is no such file"),
    ],
)
def test_rejects(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert network_cost.main(words) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_broken_overlay_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = tmp_path / "mine.json"
    overlay.write_text("{")
    assert network_cost.main([str(BUNDLES / "cow"), "--config", str(overlay)]) == 1
    assert "mine.json: not JSON" in capsys.readouterr().err


def test_an_overlay_serves_several_bundles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "bare.json"
    overlay.write_text('{"self_prediction": false}')
    words = [str(BUNDLES / "cow"), str(BUNDLES / "ssl_alpnet"), "--config", str(overlay)]
    assert network_cost.main([*words, "--spatial_size", "64"]) == 0
    text = capsys.readouterr().out
    assert text.count("bare: parameters (M)") == 2
    row = next(line for line in text.splitlines() if line.startswith("| self-prediction"))
    assert row.endswith("| - | - | - |")
    assert "## ssl_alpnet, slices of 64 x 64" in text
