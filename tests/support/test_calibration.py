from __future__ import annotations

import json

from fsmis_components.support.calibration import Calibration, StructureTest
from fsmis_components.support.support_set import Structure

LIVER = StructureTest(0.88, 0.04, 3, "scans")
KIDNEY = StructureTest(0.5, 0.1, 6, "slices")
UNTESTED = StructureTest(None, 0.0, 0, "nothing")
STRUCTURES = [Structure(name, 1, "#000000") for name in ("liver", "left kidney", "spleen")]


def test_uncertain() -> None:
    assert not LIVER.uncertain
    assert KIDNEY.uncertain and UNTESTED.uncertain
    assert StructureTest(0.8, 0.2, 4, "scans").uncertain  # good on the whole, bad at times


def test_through_json() -> None:
    whole = Calibration((LIVER, UNTESTED))
    assert Calibration.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert whole.selected([1]) == Calibration((UNTESTED,))
