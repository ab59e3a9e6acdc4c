"""The students of a folder: two of its halves, which relabel it, and the last one."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

import torch
from torch import nn

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.processes import num_processes, process_rank, wait_for_all
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.weights import fill_network, write_torch
from fsmis_components.fitting.student_scans import StudentScan, relabelled
from fsmis_components.fitting.student_slices import StudentRule, StudentSlices
from fsmis_components.fitting.student_training import STEPS_PER_EPOCH, MakeOptimizer, train_student

_FILES = ("half_1", "half_2", "student")  # names of the students in the folder, by their number
Steps = tuple[int, ...]


class StudentTrainings:
    """Train students one after the other; each training's state is kept, so a second run goes on.

    Args:
        make_network: makes a student: (B, 3, H, W) -> logits (B, 1 + N, H, W).
        loss: of logits and labels, see `MarginalDiceCELoss`.
        make_optimizer: the optimiser of some parameters.
        folder: receives the students, ``half_1.pt``, ``half_2.pt`` and ``student.pt``.
        num_structures: N.
        device: where students learn.
        steps: batches of either half student and of the last one.
        batch_size: slices a batch.
        rule: how slices are drawn.
        seed: of all draws.
        amp: learn under bfloat16 autocast.
        progress: show bars with the time that is left.

    Attributes:
        identity: of the last training's settings; set by `run`.
    """

    def __init__(
        self,
        make_network: Callable[[], nn.Module],
        loss: nn.Module,
        make_optimizer: MakeOptimizer,
        folder: Path,
        num_structures: int,
        *,
        device: torch.device,
        steps: Sequence[int],
        batch_size: int,
        rule: StudentRule,
        seed: int,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        self.make_network = make_network
        self.loss = loss
        self.make_optimizer = make_optimizer
        self.folder = folder
        self.num_structures = num_structures
        self.device = device
        self.steps = tuple(steps)
        self.batch_size = batch_size
        self.rule = rule
        self.seed = seed
        self.amp = amp
        self.progress = progress
        self.identity = ""

    def plan(self, scans: Sequence[StudentScan], minutes: float, spent: float) -> Steps:
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
            self._train(self._network(), self._slices(scans, 0), folder, 1, progress=False)
            seconds = (monotonic() - start) / STEPS_PER_EPOCH
        # the students answer for every scan at the end, in about a third of the teacher's time
        left = max(0.0, 60 * minutes - 1.4 * spent)
        share = left / seconds / sum(self.steps)
        steps = tuple(max(STEPS_PER_EPOCH, round(share * each)) for each in self.steps)
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
        return StudentSlices(scans, self.num_structures, self.rule, self.seed + number)

    def _student(
        self,
        scans: Sequence[StudentScan],
        number: int,
        start: Mapping[str, torch.Tensor] | None = None,
    ) -> nn.Module:
        steps, slices, network = self.steps[number], self._slices(scans, number), self._network()
        if start is not None:
            network.load_state_dict(start)
        given = getattr(self.make_optimizer, "keywords", {})
        settings = [repr(self.loss), given, slices.identity, steps, self.batch_size, self.seed]
        self.identity = hashlib.sha256(repr(settings).encode()).hexdigest()
        if _trained_here(number):
            # other masks or settings are another training
            folder = self.folder / "training" / f"{_FILES[number]}_{self.identity[:12]}"
            self._train(network, slices, folder, steps, number, self.progress)
            write_torch(network.state_dict(), self.folder / f"{_FILES[number]}.pt")
        return network

    def _train(
        self,
        network: nn.Module,
        slices: StudentSlices,
        folder: str | Path,
        steps: int,
        number: int = 0,
        progress: bool = True,
    ) -> None:
        train_student(
            network,
            slices,
            self.loss,
            self.make_optimizer,
            folder,
            steps=steps,
            batch_size=self.batch_size,
            seed=self.seed + number,
            name=_FILES[number].replace("_", " "),
            amp=self.amp,
            progress=progress and process_rank() == 0,
        )


def _trained_here(number: int) -> bool:
    """Whether it is this process of several that trains a student."""
    return number % num_processes() == process_rank()
