from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fsmis_components.data.geometry import SliceGrid
from fsmis_components.inferers.trust import TrustMeter, out_of_support

USUAL = {
    "similarities": (0.4,),
    "slope": 1.0,
    "mirrored": -0.1,
    "extent": 32,
    "expected": 0.75,
    "depth": 12,
    "tilt": 0.0,
    "oriented": True,
}


def warning_of(**change: Any) -> str:
    given = SimpleNamespace(**{**USUAL, **change})
    lines = [SimpleNamespace(similarity=each, slope=given.slope) for each in given.similarities]
    size, grid = (given.extent, 4), SliceGrid(2, 1.0, 32)
    view = SimpleNamespace(working_size=size, grid=grid, depth=given.depth, tilt=given.tilt)
    pack = SimpleNamespace(profiles=[SimpleNamespace(oriented=given.oriented)])
    match = SimpleNamespace(alignments=lines)
    return out_of_support((given.expected,), match, view, pack, given.mirrored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"similarities": (0.05,)}, ""),  # well segmented all the same
        ({"expected": 0.15}, "fits this scan badly (expected Dice 15)"),
        ({"expected": 0.45}, ""),  # many structures, some of them small
        ({"similarities": (0.05,), "expected": 0.15}, "similarity 0.05, expected Dice 15"),
        ({"similarities": (0.05,), "expected": 0.5}, "does not look like"),
        ({"extent": 74}, "2.3 times as large"),
        ({"extent": 12}, "0.38 times as large"),
        ({"slope": -1.0}, "run against"),
        ({"mirrored": 0.03}, "mirrored"),
        ({"mirrored": 0.01}, ""),
        ({"mirrored": 0.06, "slope": -1.0}, "mirrored"),
        ({"mirrored": 0.2, "similarities": (0.05,)}, "mirrored"),
        ({"mirrored": 0.05, "similarities": (0.05,), "expected": 0.5}, "does not look like"),
        ({"depth": 1, "slope": -1.0}, "one slice only"),
        ({"tilt": 60.0}, "tilted by 60 degrees"),
        ({"tilt": 60.0, "oriented": False}, ""),
        # the most similar scan counts
        ({"similarities": (0.1, 0.4), "expected": 0.45}, ""),
    ],
)
def test_warning(change: dict[str, Any], word: str) -> None:
    warning = warning_of(**change)
    assert word in warning
    assert bool(warning) == bool(word)
    assert "\n" not in warning


def test_little_is_expected_where_query_and_support_do_not_look_alike() -> None:
    meter = TrustMeter(1, 1)
    block = torch.zeros(2, 1, 16, 16)
    block[..., 4:12, 4:12] = 1.0
    meter.add(20 * block - 10, block)
    foreign, doubtful, alike, moved = (
        meter.expected_dice(likeness)[0] for likeness in (0.2, 0.3, 0.5, float("nan"))
    )
    assert foreign == 0.0 < doubtful < alike < 1.0
    assert moved == 1.0
