"""The parts of the app.

Where `fsmis_components` is not installed, the copy in the first packed bundle of `model/` serves.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("fsmis_components") is None:
    _models = Path(__file__).resolve().parents[1] / "model"
    sys.path += [str(found.parent) for found in sorted(_models.glob("*/fsmis_components"))[:1]]
