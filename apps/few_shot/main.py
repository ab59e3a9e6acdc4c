"""A MONAI Label app: label a structure in one scan, and the others follow.

    monailabel start_server --app apps/few_shot --studies STUDIES --conf models ssl_alpnet \
        --host 127.0.0.1

README.md is the annotator's page. Where `fsmis_components` is not installed, the copy in the first
packed bundle of `model/` serves.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("fsmis_components") is None:
    _models = Path(__file__).resolve().parent / "model"
    sys.path += [str(found.parent) for found in sorted(_models.glob("*/fsmis_components"))[:1]]

# MONAI Label takes the app that it finds among the names of this module
from fsmis_components.label_server.app import FewShotApp  # noqa: E402

__all__ = ["FewShotApp"]
