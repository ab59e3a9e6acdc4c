"""What stands in for the training command in tests of what calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fsmis_components.data.errors import DataError
from fsmis_components.episodes.checkpoint import save_state


class FakeTraining:
    """Does all epochs at once, leaves the weights that it is to make, and notes what was asked."""

    def __init__(self, weights: Callable[[dict[str, Any]], dict[str, torch.Tensor]]) -> None:
        self.weights = weights
        self.calls: list[dict[str, Any]] = []
        self.broken: set[int] = set()  # folds
        self.stop_after: int | None = None  # calls

    def __call__(self, root: Path, knobs: dict[str, Any]) -> None:
        assert root.name == "ssl_alpnet"
        self.calls.append(knobs)
        if self.stop_after is not None and len(self.calls) > self.stop_after:
            raise KeyboardInterrupt
        if knobs["fold"] in self.broken:
            raise DataError("image_7.nii.gz: damaged; export it again.")
        output, epochs = Path(knobs["output_dir"]), knobs.get("epochs", 40)
        content = {"epoch": epochs, "settings": {"epochs": epochs}, "seconds": 60.0 * epochs}
        save_state(content, output / "training_state")
        (output / "models").mkdir()
        torch.save(self.weights(knobs), output / "models" / "model.pt")
