from __future__ import annotations

from pathlib import Path

import pytest

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.inference_benchmark import measure_bundle

BUNDLE = Path(__file__).parents[3] / "bundles" / "ssl_alpnet"


@pytest.mark.parametrize(
    ("bundle", "knobs", "sentence"),
    [
        (Path("nowhere"), {}, "nowhere: no bundle there"),
        (BUNDLE, {"speed": 3}, "the bundle has no knob speed"),
        (BUNDLE, {"weights": "none", "dataset_dir": "no_scans"}, "no_scans: there is no such"),
    ],
)
def test_rejects(bundle: Path, knobs: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        measure_bundle(bundle, tmp_path / "t", 1, knobs)
    assert list((tmp_path / "t").iterdir()) == []
