"""Fit to a folder: the bundle answers, students learn from that, the gate decides between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.networks import eval_mode
from torch import nn

from fsmis_components.bundle import Bundle
from fsmis_components.data.atomic import atomic_write_text, check_writable
from fsmis_components.data.cases import Case, search_cases
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.processes import (
    from_first,
    interrupted_together,
    process_rank,
    wait_for_all,
)
from fsmis_components.data.run_record import DONE, read_rows
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.encoding import ScanEncoder
from fsmis_components.fitting.changes import draw_changes
from fsmis_components.fitting.fitted_inferer import FittedInferer, TeacherAnswer
from fsmis_components.fitting.gate import doubtful_masks, usual_volume
from fsmis_components.fitting.student_bundle import write_student_bundle
from fsmis_components.fitting.student_scans import (
    StudentScan,
    student_grid,
    student_image,
    student_label,
)
from fsmis_components.fitting.students import MakeOptimizer, StudentTrainings
from fsmis_components.inferers import FolderEvaluator, query_items
from fsmis_components.inferers.request_answer import known_slices
from fsmis_components.inferers.slice_order import decide_view
from fsmis_components.inferers.trust import told_order
from fsmis_components.support import Corrections, load_support_set
from fsmis_components.support.support_set import SupportScan

_FEWEST = 4  # scans of the folder, corrected ones too: each half needs patients to mix
_FEWEST_UNLABELLED = 2  # of these: one in each half


@dataclass(kw_only=True)
class FolderFit:
    """Segment a folder by a small network of its own, which learns from the bundle's answers.

    The bundle (the teacher) segments every scan. Two students learn from the labelled scans and one
    half of the folder each; their mean mask of a scan, of which one student has not learned, is
    what the last student learns. Where the gate finds that students disagree on a structure, the
    teacher's mask stays. Each step is kept, so the same command goes on where it was stopped.
    Afterwards `inferer` segments scans by `student`, new ones too.

    Attributes:
        make_teacher: loads the bundle.
        make_network: makes a student for a number of ``out_channels``: (B, 3, H, W) -> logits.
        loss: of logits and labels, see `MarginalDiceCELoss`.
        make_optimizer: the optimiser of some parameters.
        dataset_dir: folder of scans.
        support_dir: folder of labelled scans.
        output_dir: receives masks, pictures, table and report, ``teacher/`` with the bundle's own
            answer, ``models/`` with the students.
        wanted: `support_ids`, `structures`, `num_shots` of the labelled scans; None: all.
        corrections_dir: folder of corrected masks of scans; they count as labels.
        new_dir: folder of scans to segment in place of `dataset_dir`, from which nothing is
            learned; their masks go to ``new/``.
        student_size: pixels of the larger side of a slice, at the most.
        half_steps: batches of each half student.
        final_steps: batches of the last one.
        minutes: of the whole command, from which the batches follow where it is given; what was
            planned once holds when the command goes on.
        batch_size: slices a batch.
        uncertainty: also write uncertainty maps.
        amp: students learn under bfloat16 autocast.
        seed: of all draws.
    """

    make_teacher: Callable[[], Bundle]
    make_network: partial[nn.Module]
    loss: nn.Module
    make_optimizer: MakeOptimizer
    dataset_dir: str | Path
    support_dir: str | Path | None
    output_dir: str | Path
    wanted: Mapping[str, Any]
    corrections_dir: str | Path | None
    new_dir: str | Path | None
    student_size: int
    half_steps: int
    final_steps: int
    minutes: float | None
    batch_size: int
    uncertainty: bool
    amp: bool
    seed: int

    @exit_on_data_error
    def run(self) -> None:
        """Do what is not done yet.

        Raises:
            SystemExit: no labelled scan, too few others, an output folder of another run, scans
                that failed (all others are done), or an interruption.
        """
        if not self.support_dir:
            raise DataError("support_dir: fitting needs labelled scans; name their folder.")
        for knob in ("student_size", "batch_size", "half_steps", "final_steps"):
            value = getattr(self, knob)
            if not (isinstance(value, int) and value > 0):
                raise DataError(f"{knob}: expected a whole number above 0, got {value!r}.")
        self.wanted = {key: value for key, value in self.wanted.items() if value is not None}
        self.teacher = self.make_teacher()
        try:
            with interrupted_together():
                self._run(self.support_dir, Path(self.output_dir))
        except KeyboardInterrupt as error:
            raise DataError("interrupted; give the same command again to go on.") from error

    def _run(self, support: str | Path, output: Path) -> None:
        start = monotonic()
        check_writable(output)
        cases = search_cases(self.dataset_dir, labels="never").cases
        # before the fit: it tells what is wrong with the folder
        new = None if self.new_dir is None else query_items(self.new_dir)
        corrections = Corrections(self.corrections_dir, self.dataset_dir)
        labelled = [
            *load_support_set(support, **self.wanted).scans,
            *(each.load() for each in corrections.found().values()),
        ]
        self._answers = self._taught(cases, support, output / "teacher")
        self.values = tuple(structure.value for structure in self.pack.structures)
        self.grid = student_grid(self.pack.grid, labelled[0].image, self.student_size)
        drawn = [self._scan(scan.name, scan.image, scan.label, None) for scan in labelled]
        learned, usual = self._learned(cases, labelled)
        # a folder with new scans is another fit, which takes the place of the former
        fitted, stems = output / "models" / "scans.json", [case.stem for case in cases]
        renews = from_first(partial(_differs, fitted, stems))
        make_network = partial(self.make_network, out_channels=1 + len(self.values))
        trainings = StudentTrainings(
            make_network,
            self.loss,
            self.make_optimizer,
            output / "models",
            len(self.values),
            next(self.teacher.network.parameters()).device,
            (self.half_steps, self.half_steps, self.final_steps),
            self.batch_size,
            self.seed,
            self.amp,
        )
        if self.minutes is not None:
            trainings.steps = from_first(
                partial(trainings.plan, [*drawn, *learned], self.minutes, monotonic() - start)
            )
        *judges, self.student = trainings.run(drawn, learned)
        self.inferer = FittedInferer(
            self.pack,
            partial(
                self.teacher.inferer.segment_volume, network=self.teacher.network, pack=self.pack
            ),
            self._view,
            judges,
            self._answers,
            usual,
            {"students": trainings.identity, "teacher": self.pack.weights_hash},
            self.uncertainty,
        )
        first = process_rank() == 0
        if first:
            view = self._view(labelled[0].image)
            write_student_bundle(
                output / "bundle",
                self.student,
                make_network,
                self.pack,
                view,
                len(learned),
                len(drawn),
            )
        if new is not None:
            self._segment(new, output / "new", renews=True)
            return
        own = corrections if self.corrections_dir else None
        self._segment(query_items(self.dataset_dir), output, renews, own)
        if first:
            atomic_write_text(fitted, json.dumps(stems))
            draw_changes(output / "changes", cases, output / "teacher", output, self.pack)

    def _segment(
        self,
        scans: list[dict[str, Any]],
        output: Path,
        renews: bool,
        corrections: Corrections | None = None,
    ) -> None:
        FolderEvaluator(
            next(self.student.parameters()).device,
            Dataset(scans),
            self.student,
            self.inferer,  # type: ignore[arg-type]
            output,
            corrections=corrections,
            renews=renews,
        ).run()

    def _taught(
        self, cases: Sequence[Case], support: str | Path, folder: Path
    ) -> dict[Path, TeacherAnswer]:
        """Let the bundle segment the folder and keep its support; what it made of each scan."""
        pack = folder / "support_pack.safetensors"
        knobs = {"corrections_dir": self.corrections_dir, "save_support_pack": pack}
        knobs = {knob: str(path) for knob, path in knobs.items() if path}
        try:
            self.teacher.segment_folder(self.dataset_dir, folder, support, **self.wanted, **knobs)
        except DataError:
            if len(read_rows(folder)) < len(cases):  # interrupted, or nothing could be done at all
                raise
        wait_for_all()  # until the first process has written the table
        self.pack = self.teacher.support(pack)
        columns = [structure.column for structure in self.pack.structures]
        rows = {stem: row for stem, row in read_rows(folder).items() if row.status == DONE}
        if len(rows) < _FEWEST:
            raise DataError(
                f"{self.dataset_dir}: {len(rows)} scans could be segmented, and fitting needs "
                f"{_FEWEST} beside the labelled ones; the bundle's own masks are in {folder}."
            )
        return {
            case.image: TeacherAnswer(
                folder / f"{case.stem}_seg.nii.gz",
                tuple(row.volumes[column] for column in columns),
                tuple(row.expected_dice.get(column, 0.0) for column in columns),
                row.warning,
            )
            for case in cases
            if (row := rows.get(case.stem)) is not None
        }

    def _view(self, volume: Volume, warning: str = "") -> SliceView:
        """A scan on the student's grid, read in the order in which the teacher reads it."""
        inferer = self.teacher.inferer
        encoder = ScanEncoder(
            self.teacher.network,
            inferer.batch_size,
            inferer.amp,
            inferer.cache,
            self.pack.weights_hash,
        )
        with eval_mode(self.teacher.network), torch.inference_mode():
            view = decide_view(encoder, volume, self.pack)
        return SliceView(volume, self.grid, told_order(view, warning))

    def _scan(
        self, name: str, image: Volume, label: Volume, doubtful: tuple[bool, ...] | None
    ) -> StudentScan:
        """A scan as students see it; where nothing is said of doubt, a person drew the label.

        Of that nothing is known in slices between, or beside, some that were drawn with gaps.
        """
        answer = None if image.source is None else self._answers.get(image.source)
        view = self._view(image, "" if answer is None else answer.warning)
        marks = Volume(np.asarray(label.data), image.affine, image.source, image.oriented)
        numbers = student_label(SliceView(marks, self.grid, view.order), self.values)
        if doubtful is None:
            drawn = [(numbers == n).any(2).any(1).numpy() for n in range(1, len(self.values) + 1)]
            doubt = ~torch.from_numpy(np.stack([known_slices(each) for each in drawn], 1))
        else:
            doubt = torch.tensor(doubtful).expand(view.depth, -1).clone()
        pixels = student_image(view, self.pack.normalisation)
        return StudentScan(
            name, pixels, numbers, view.native_spacing[0], doubt, labelled=doubtful is None
        )

    def _learned(
        self, cases: Sequence[Case], labelled: Sequence[SupportScan]
    ) -> tuple[list[StudentScan], list[float]]:
        """The unlabelled scans with the teacher's masks, and the usual volume of each structure."""
        known = {file_hash(each.image.source) for each in labelled if each.image.source}
        unlabelled = [
            case
            for case in cases
            if case.image in self._answers and file_hash(case.image) not in known
        ]
        if len(unlabelled) < _FEWEST_UNLABELLED:
            raise DataError(
                f"{self.dataset_dir}: holds {len(unlabelled)} scans beside the labelled ones, and "
                f"fitting needs {_FEWEST_UNLABELLED}; the bundle's own masks are in "
                f"{Path(self.output_dir) / 'teacher'}."
            )
        answers = [self._answers[case.image] for case in unlabelled]
        usual = [
            usual_volume(
                [scan.image.millilitres(scan.label.data, value) for scan in labelled],
                [each.volumes[index] for each in answers],
            )
            for index, value in enumerate(self.values)
        ]
        scans = []
        for case, answer in zip(unlabelled, answers, strict=True):
            image = load_image(case.image)
            doubtful = doubtful_masks(answer.volumes, answer.expected_dice, usual)
            scans.append(self._scan(case.stem, image, load_label(answer.mask, image), doubtful))
        return scans, usual


def _differs(path: Path, stems: list[str]) -> bool:
    """Whether a fit of other scans was noted in a file; where none was, these are."""
    if not path.is_file():
        atomic_write_text(path, json.dumps(stems))
    return parse_json(path.read_text(encoding="utf-8")) != stems
