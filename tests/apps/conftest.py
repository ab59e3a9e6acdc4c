"""The app's parts import each other as `lib`, as MONAI Label finds them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "apps" / "few_shot"))
