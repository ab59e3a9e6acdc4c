"""What a person sees of a training: a progress bar with the time left, and the redraws."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

logger = logging.getLogger(__name__)


class TrainingProgress:
    """Ignite handler with one bar over all steps of a training.

    Args:
        output_dir: where the results are.
        bundle_root: the bundle; the command that uses the weights is printed at the end.
    """

    def __init__(self, output_dir: str | Path, bundle_root: str | Path = ".") -> None:
        self.output_dir = Path(output_dir)
        self.bundle_root = Path(bundle_root)
        self.redraws = 0
        self.loss = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow the engine from the epoch that it starts or goes on with."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _start(self, engine: Engine) -> None:
        total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0)
        done = engine.state.iteration
        if done >= total:
            logger.info("%s: this training is finished, nothing is left to do", self.output_dir)
        # where the training fails, the bar must not be drawn again below the reason
        self.bar = tqdm(
            total=total, initial=done, desc="training", unit="step", mininterval=5, leave=False
        )

    def _step(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        self.redraws += int(batch["redraws"].sum())
        # a running mean: the loss of one episode says little
        value = output["loss"].item()
        self.loss = value if self.loss == 0 else 0.98 * self.loss + 0.02 * value
        self.bar.set_postfix(loss=f"{self.loss:.3f}", redraws=self.redraws, refresh=False)
        self.bar.update()

    def _epoch(self, engine: Engine) -> None:
        engine.state.metrics["redraws"] = self.redraws

    def _end(self, engine: Engine) -> None:
        self.bar.leave = True
        self.bar.close()
        logger.info(
            "%d episodes were drawn again. To segment with these weights:\n"
            "python -m monai.bundle run --config_file %s --bundle_root %s --weights %s "
            "--support_dir LABELLED --dataset_dir SCANS --output_dir MASKS",
            self.redraws,
            self.bundle_root / "configs" / "inference.json",
            self.bundle_root,
            self.output_dir / "models" / "model.pt",
        )
