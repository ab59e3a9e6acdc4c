"""Train one student; an interrupted training goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fsmis_components.episodes import EpisodeSampler, EpochSetter, TrainingState
from fsmis_components.fitting.student_slices import StudentSlices
from fsmis_components.inferers import AutocastInferer

STEPS_PER_EPOCH = 25  # after each the training's state is kept

MakeOptimizer = Callable[[object], torch.optim.Optimizer]


def train_student(
    network: nn.Module,
    slices: StudentSlices,
    loss: nn.Module,
    make_optimizer: MakeOptimizer,
    folder: str | Path,
    *,
    steps: int,
    batch_size: int = 8,
    seed: int = 0,
    name: str = "student",
    amp: bool = False,
    progress: bool = True,
) -> None:
    """Train a student on slices, one cycle of the learning rate long.

    Args:
        network: (B, 3, H, W) -> logits (B, 1 + N, H, W); begins with the weights that it has.
        slices: what it learns from.
        loss: of logits and labels, see `MarginalDiceCELoss`.
        make_optimizer: the optimiser of some parameters, at its largest learning rate.
        folder: keeps the training's state; a second call goes on from there.
        steps: batches, rounded up to whole epochs of 25.
        batch_size: slices of a batch.
        seed: of what the network itself draws.
        name: what the progress bar says.
        amp: bfloat16 autocast.
        progress: show a bar with the time that is left.

    Raises:
        SystemExit: a training with other settings lies in the folder, or it cannot be written.
    """
    epochs = max(1, -(-steps // STEPS_PER_EPOCH))
    optimizer = make_optimizer(network.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=epochs * STEPS_PER_EPOCH + 1,
        pct_start=0.1,
    )
    sampler = EpisodeSampler(STEPS_PER_EPOCH * batch_size)
    state = TrainingState(
        folder,
        {"network": network, "optimizer": optimizer, "scheduler": scheduler},
        {"steps": steps, "batch_size": batch_size, "seed": seed, "slices": slices.identity},
    )
    device = next(network.parameters()).device
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=DataLoader(slices, batch_size, sampler=sampler),
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        inferer=AutocastInferer(amp),
        train_handlers=[
            state,
            EpochSetter(sampler, seed),
            # MONAI's annotation names the base class before PyTorch 2
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),  # type: ignore[arg-type]
        ],
        decollate=False,
    )
    trainer.logger.disabled = True  # ignite's start and end lines break the bar
    trainer.add_event_handler(Events.ITERATION_COMPLETED, _check_loss)
    if progress:
        ProgressBar(desc=name).attach(
            trainer,
            event_name=Events.EPOCH_COMPLETED,
            closing_event_name=Events.COMPLETED,
            output_transform=lambda output: {"loss": output["loss"].item()},
        )
    trainer.run()
    network.eval()


def _check_loss(engine: Engine) -> None:
    loss: Tensor = engine.state.output["loss"]  # type: ignore[index]
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()} in step {engine.state.iteration}")
