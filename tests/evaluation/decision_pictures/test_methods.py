from __future__ import annotations

from pathlib import Path

import pytest
from fake_network import IntensityNetwork
from made_pairs import block_pairs, tiny_cow, tiny_ips
from torch import nn

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.decision_pictures import draw_rows, method_of


@pytest.mark.parametrize(("network", "columns"), [(tiny_cow(), 8), (tiny_ips(), 9)])
def test_a_network_says_how_it_is_drawn(tmp_path: Path, network: nn.Module, columns: int) -> None:
    name, method = method_of(network, "a bundle")
    assert name == type(network).__name__
    rows = [method.row(network, pair) for pair in block_pairs(tmp_path)]
    assert [len(row.panels) for row in rows] == [columns, columns]
    assert draw_rows(tmp_path / "p.png", rows, method.keys, name, method.note).is_file()


def test_a_reconstruction_is_called_one() -> None:
    assert "reconstructed from the abstract" in method_of(tiny_ips(), "")[1].note


def test_rejects() -> None:
    with pytest.raises(DataError, match="here: decisions of IntensityNetwork cannot be drawn"):
        method_of(IntensityNetwork(), "here")
