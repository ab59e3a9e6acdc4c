from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from draw_annotation import Session, draw, main

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssl_alpnet"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("session"), BUNDLE, count=3, shape=(96, 80, 12))


def test_results_are_measured_against_the_truth(session: Session):
    found = session.run(session.pack([1]), 2)
    truth = session.truth(2)
    assert set(np.unique(truth)) == {0, 1, 2}
    for value in (1, 2):
        both, own = (found.mask == value) & (truth == value), (found.mask == value).sum()
        measured = 2 * both.sum() / (own + (truth == value).sum())
        assert found.dice[value] == pytest.approx(measured, abs=0.001)
        assert measured > 0.5 and 0 < found.expected[value] <= 1


def test_five_pictures_are_drawn(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    draw(session, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[:2] for name in names] == ["1_", "2_", "3_", "4_", "5_"]
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["scan_2", "scan_3"]
    assert sum("(corrected)" in line for line in lines) == 1


def test_a_folder_that_is_no_bundle_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = ["draw_annotation.py", "--bundle_root", str(tmp_path), "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 1
    assert str(tmp_path) in capsys.readouterr().err
