"""The students of a folder: two of its halves, which relabel it, and the last one."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.processes import num_processes, process_rank, wait_for_all
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.weights import fill_network, write_torch
from fsmis_components.episodes import EpisodeSampler, EpochSetter, TrainingState
from fsmis_components.fitting.student_scans import StudentScan, relabelled
from fsmis_components.fitting.student_slices import StudentSlices
from fsmis_components.inferers import AutocastInferer

_STEPS_PER_EPOCH = 25  # after each the training's state is kept
_FILES = ("half_1", "half_2", "student")  # names of the students in the folder, by their number

MakeOptimizer = Callable[[object], torch.optim.Optimizer]


@dataclass
class StudentTrainings:
    """Train students one after the other; each training's state is kept: a second run goes on."""

    make_network: Callable[[], nn.Module]  # a student: (B, 3, H, W) -> logits (B, 1 + N, H, W)
    loss: nn.Module  # of logits and labels, see `MarginalDiceCELoss`
    make_optimizer: MakeOptimizer  # of some parameters, at its largest learning rate
    folder: Path  # receives the students, `half_1.pt`, `half_2.pt` and `student.pt`
    num_structures: int
    device: torch.device
    # batches of either half student and of the last one, each rounded up to whole epochs of 25: one
    # cycle of the learning rate
    steps: tuple[int, ...]
    batch_size: int  # slices a batch
    seed: int
    amp: bool  # learn under bfloat16 autocast
    identity: str = field(init=False, default="")  # of the last training's settings; set by `run`

    def plan(self, scans: Sequence[StudentScan], minutes: float, spent: float) -> tuple[int, ...]:
        """Steps that fit into the time; measured once and kept.

        Args:
            scans: what is learned from.
            minutes: of the whole command.
            spent: seconds of it before the trainings.
        """
        path = self.folder / "plan.json"
        if path.is_file():
            return tuple(map(int, parse_json(path.read_text(encoding="utf-8"))))
        with tempfile.TemporaryDirectory() as folder:
            start = monotonic()
            self._train(self._network(), self._slices(scans, 0), Path(folder), 1, "")
            seconds = (monotonic() - start) / _STEPS_PER_EPOCH
        # the students answer for every scan at the end, in about a third of the teacher's time
        left = max(0.0, 60 * minutes - 1.4 * spent)
        share = left / seconds / sum(self.steps)
        steps = tuple(max(_STEPS_PER_EPOCH, round(share * each)) for each in self.steps)
        atomic_write_text(path, json.dumps(steps))
        return steps

    def run(self, drawn: Sequence[StudentScan], learned: Sequence[StudentScan]) -> list[nn.Module]:
        """The students of both halves of the folder, and the last one.

        Of several processes each trains a half, and the first one the last student.

        Args:
            drawn: scans that persons labelled, from which all learn.
            learned: the other scans, with the teacher's masks.
        """
        # neighbours in a folder are often one patient, whom both halves would know otherwise
        middle = (len(learned) + 1) // 2
        halves = [learned[:middle], learned[middle:]]
        students = [self._student([*drawn, *half], number) for number, half in enumerate(halves)]
        self._gather(students, 0)
        lessons = [relabelled(scan, students) for scan in learned]
        last = self._student([*drawn, *lessons], 2, students[0].state_dict())
        self._gather([last], 2)
        return [*students, last]

    def _gather(self, students: Sequence[nn.Module], first: int) -> None:
        """Give each process what others have trained: students `first` and those after it."""
        wait_for_all()
        for number, student in enumerate(students, first):
            if not _trained_here(number):
                fill_network(student.eval(), self.folder / f"{_FILES[number]}.pt")

    def _network(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # the same beginning for both halves
            network = self.make_network()
        network.to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _slices(self, scans: Sequence[StudentScan], number: int) -> StudentSlices:
        return StudentSlices(scans, self.num_structures, seed=self.seed + number)

    def _student(
        self, scans: Sequence[StudentScan], number: int, start: Mapping[str, Tensor] | None = None
    ) -> nn.Module:
        steps, slices, network = self.steps[number], self._slices(scans, number), self._network()
        if start is not None:
            network.load_state_dict(start)
        given = getattr(self.make_optimizer, "keywords", {})
        settings = [repr(self.loss), given, slices.identity, steps, self.batch_size, self.seed]
        self.identity = hashlib.sha256(repr(settings).encode()).hexdigest()
        if _trained_here(number):
            name = _FILES[number]
            # other masks or settings are another training
            folder = self.folder / "training" / f"{name}_{self.identity[:12]}"
            bar = name.replace("_", " ") if process_rank() == 0 else ""
            self._train(network, slices, folder, steps, bar)
            write_torch(network.state_dict(), self.folder / f"{name}.pt")
        return network

    def _train(
        self, network: nn.Module, slices: StudentSlices, folder: Path, steps: int, bar: str
    ) -> None:
        """Train a network from the weights that it has; a second call goes on.

        A bar without a name is not shown.
        """
        epochs = max(1, -(-steps // _STEPS_PER_EPOCH))
        optimizer = self.make_optimizer(network.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=epochs * _STEPS_PER_EPOCH + 1,
            pct_start=0.1,
        )
        sampler = EpisodeSampler(_STEPS_PER_EPOCH * self.batch_size)
        state = TrainingState(
            folder,
            {"network": network, "optimizer": optimizer, "scheduler": scheduler},
            {
                "steps": steps,
                "batch_size": self.batch_size,
                "seed": slices.seed,
                "slices": slices.identity,
            },
        )
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=epochs,
            train_data_loader=DataLoader(slices, self.batch_size, sampler=sampler),
            network=network,
            optimizer=optimizer,
            loss_function=self.loss,
            inferer=AutocastInferer(self.amp),
            train_handlers=[
                state,
                EpochSetter(sampler, slices.seed),
                # MONAI's annotation names the base class before PyTorch 2
                LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),  # type: ignore[arg-type]
            ],
            decollate=False,
        )
        trainer.logger.disabled = True  # ignite's start and end lines break the bar
        trainer.add_event_handler(Events.ITERATION_COMPLETED, _check_loss)
        if bar:
            ProgressBar(desc=bar).attach(
                trainer,
                event_name=Events.EPOCH_COMPLETED,
                closing_event_name=Events.COMPLETED,
                output_transform=lambda output: {"loss": output["loss"].item()},
            )
        trainer.run()
        network.eval()


def _trained_here(number: int) -> bool:
    """Whether it is this process of several that trains a student."""
    return number % num_processes() == process_rank()


def _check_loss(engine: Engine) -> None:
    loss: Tensor = engine.state.output["loss"]  # type: ignore[index]
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()} in step {engine.state.iteration}")
