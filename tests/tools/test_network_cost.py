from __future__ import annotations

from pathlib import Path

import pytest

import network_cost

BUNDLES = Path(__file__).parents[2] / "bundles"


def table(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    network_cost.main([*words, "--spatial_size", "64"])
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("| ")]
    return {title: cells for title, *cells in (line.strip("| ").split(" | ") for line in lines[2:])}


def test_costs_of_cow_in_both_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, str(BUNDLES / "cow"))
    # as documented; of an encoder without attention a sixteenth of the work at 256 x 256
    assert rows["parameters of `encoder` (M)"] == ["3.827", "28.060"]
    assert rows["parameters (M)"] == ["4.293", "114.822"]
    work = [float(cell) for cell in rows["encode a slice (G)"]]
    assert work == pytest.approx([4.258 / 16, 114.709 / 16], abs=0.001)
    assert all(float(cell) > 0 for cell in rows["make the support's state (G)"])
    assert all(float(cell) > 0 for cell in rows["segment a slice (G)"])


def test_an_overlay_stands_beside_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "bare.json"
    overlay.write_text('{"self_prediction": false}')
    rows = table(capsys, str(BUNDLES / "cow"), "--config", str(overlay))
    default, bare = map(float, rows["parameters of `miner` (M)"])
    assert bare == pytest.approx(default - 0.201, abs=0.001)  # the self-prediction decoder


def test_no_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    assert network_cost.main(["nowhere"]) == 1
    assert "inference.json: there is no such file" in capsys.readouterr().err
