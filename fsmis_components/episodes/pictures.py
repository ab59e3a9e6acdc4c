"""Pictures of episodes for TensorBoard: support, query, pseudo-labels and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fsmis_components.reporting.drawing import paint_masks


class EpisodePictures:
    """Ignite handler for a validation: draw its first episode, once per run of the evaluator.

    Args:
        log_dir: TensorBoard's folder.
        tag: name of the picture.
    """

    def __init__(self, log_dir: str | Path, tag: str = "episode") -> None:
        self.log_dir = str(log_dir)
        self.tag = tag
        self.calls = 0
        self.writer: SummaryWriter | None = None  # opened when there is something to draw

    def attach(self, engine: Engine) -> None:
        """Draw after the first batch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write support with its labels, query with its labels, query with the prediction."""
        if engine.state.iteration != 1:
            return
        picture = episode_picture(_first(engine.state.batch), _first(engine.state.output)["pred"])
        if self.writer is None:
            self.writer = SummaryWriter(self.log_dir)
        self.writer.add_image(self.tag, picture, self.calls, dataformats="HWC")
        self.writer.flush()
        self.calls += 1


def episode_picture(episode: dict[str, Tensor], pred: Tensor) -> np.ndarray:
    """Return one RGB picture (W, 3 * H, 3) of an episode, turned as radiologists look at slices.

    Args:
        episode: image (1, H, W), label (N, H, W), support_image (S, 1, H, W), support_label
            (S, N, H, W).
        pred: binary masks (N, H, W).
    """
    panels = [
        (episode["support_image"][0, 0], episode["support_label"][0]),
        (episode["image"][0], episode["label"]),
        (episode["image"][0], pred),
    ]
    return np.concatenate(
        [
            paint_masks(image.float().cpu().numpy(), mask.cpu().numpy() > 0.5)
            for image, mask in panels
        ],
        1,
    )


def _first(batch: Any) -> dict[str, Tensor]:
    """Return the first episode of a batch, which MONAI may have decollated."""
    if isinstance(batch, list):
        return batch[0]
    return {k: v[0] for k, v in batch.items() if isinstance(v, Tensor) and v.ndim > 0}
