"""Fit to a folder: the bundle answers, students learn from that, the gate decides between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from fsmis_components.data.errors import DataError, exit_on_data_error, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.geometry import SliceView
from fsmis_components.data.processes import (
    from_first,
    interrupted_together,
    process_rank,
    wait_for_all,
)
from fsmis_components.data.run_record import DONE, CaseRow, read_rows
from fsmis_components.data.safe_text import parse_json
from fsmis_components.data.volumes import Volume, load_image, load_label
from fsmis_components.fitting.fitted_inferer import FittedInferer
from fsmis_components.fitting.gate import doubtful_masks, mask_dice, usual_volume
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
from fsmis_components.reporting.drawing import save_overlay
from fsmis_components.support import Corrections, SupportPack, SupportScan, load_support_set

_FEWEST = 4  # scans of the folder, corrected ones too: each half needs patients to mix
_FEWEST_UNLABELLED = 2  # of these: one in each half
_MOST_CHANGES = 6  # scans whose changes are drawn


@dataclass(kw_only=True)
class FolderFit:
    """Segment a folder by a small network of its own, which learns from the bundle's answers.

    The bundle (the teacher) segments every scan. Two students learn from the labelled scans and one
    half of the folder each; their mean mask of a scan, of which one student has not learned, is
    what the last student learns. Where the gate finds that students disagree on a structure, the
    teacher's mask stays. Each step is kept, so the same command goes on where it was stopped.
    Afterwards `inferer` segments scans by `student`, new ones too.
    """

    make_teacher: Callable[[], Bundle]
    make_network: partial[nn.Module]  # a student of so many `out_channels`: (B, 3, H, W) -> logits
    loss: nn.Module  # of logits and labels, see `MarginalDiceCELoss`
    make_optimizer: MakeOptimizer  # of some parameters
    dataset_dir: str | Path  # folder of scans
    support_dir: str | Path | None  # folder of labelled scans
    # receives masks, pictures, table and report, `teacher/` with the bundle's own answer, `models/`
    # with the students
    output_dir: str | Path
    wanted: Mapping[str, Any]  # `support_ids`, `structures`, `num_shots`; None: all
    corrections_dir: str | Path | None  # folder of corrected masks of scans; they count as labels
    # folder of scans to segment in place of `dataset_dir`, from which nothing is learned; their
    # masks go to `new/`
    new_dir: str | Path | None
    student_size: int  # pixels of the larger side of a slice, at the most
    half_steps: int  # batches of each half student
    final_steps: int  # and of the last one
    # of the whole command, from which the batches follow where it is given; what was planned once
    # holds when the command goes on
    minutes: float | None
    batch_size: int  # slices a batch
    uncertainty: bool  # also write uncertainty maps
    amp: bool  # students learn under bfloat16 autocast
    seed: int  # of all draws

    @exit_on_data_error
    def run(self) -> None:
        """Do what is not done yet; what prevents that, or failed scans, end the command at last."""
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
        taught = output / "teacher"
        self._answers = self._taught(cases, support, taught)
        self.values = tuple(structure.value for structure in self.pack.structures)
        self.grid = student_grid(self.pack.grid, labelled[0].image, self.student_size)
        drawn = [self._scan(scan.name, scan.image, scan.label, None) for scan in labelled]
        learned, usual = self._learned(cases, labelled, taught)
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
            partial(self.teacher.segment, support=self.pack),
            self._view,
            judges,
            self._answers,
            taught,
            usual,
            {"students": trainings.identity, "teacher": self.pack.weights_hash},
            self.uncertainty,
        )
        first = process_rank() == 0
        if first:
            made = self.student, make_network, self.pack, self._view(labelled[0].image)
            write_student_bundle(output / "bundle", *made, len(learned), len(drawn))
        if new is not None:
            self._segment(new, output / "new", renews=True)
            return
        scans = query_items(self.dataset_dir)
        self._segment(scans, output, renews=renews, corrections=corrections)
        if first:
            atomic_write_text(fitted, json.dumps(stems))
            _draw_changes(output, cases, self.pack)

    def _segment(self, scans: list[dict[str, Any]], output: Path, **options: Any) -> None:
        device = next(self.student.parameters()).device
        inferer: Any = self.inferer
        FolderEvaluator(device, Dataset(scans), self.student, inferer, output, **options).run()

    def _taught(
        self, cases: Sequence[Case], support: str | Path, folder: Path
    ) -> dict[Path, CaseRow]:
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
        rows = {stem: row for stem, row in read_rows(folder).items() if row.status == DONE}
        if len(rows) < _FEWEST:
            raise DataError(
                f"{self.dataset_dir}: {len(rows)} scans could be segmented, and fitting needs "
                f"{_FEWEST} beside the labelled ones; the bundle's own masks are in {folder}."
            )
        return {case.image: rows[case.stem] for case in cases if case.stem in rows}

    def _view(self, volume: Volume, warning: str = "") -> SliceView:
        """A scan on the student's grid, read in the order in which the teacher reads it."""
        network = self.teacher.network
        with eval_mode(network), torch.inference_mode():
            encoder = self.teacher.inferer.encoder(network, self.pack)
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
        marks = replace(image, data=np.asarray(label.data))
        numbers = student_label(SliceView(marks, self.grid, view.order), self.values)
        if doubtful is None:
            drawn = [(numbers == n).any(2).any(1).numpy() for n in range(1, len(self.values) + 1)]
            doubt = ~torch.from_numpy(np.stack([known_slices(each) for each in drawn], 1))
        else:
            doubt = torch.tensor(doubtful).expand(view.depth, -1).clone()
        pixels, spacing = student_image(view, self.pack.normalisation), view.native_spacing[0]
        return StudentScan(name, pixels, numbers, spacing, doubt, labelled=doubtful is None)

    def _learned(
        self, cases: Sequence[Case], labelled: Sequence[SupportScan], taught: Path
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
                f"fitting needs {_FEWEST_UNLABELLED}; the bundle's own masks are in {taught}."
            )
        rows = [self._answers[case.image] for case in unlabelled]
        usual = [
            usual_volume(
                [scan.image.millilitres(scan.label.data, each.value) for scan in labelled],
                [row.volumes[each.column] for row in rows],
            )
            for each in self.pack.structures
        ]
        columns = [structure.column for structure in self.pack.structures]
        scans = []
        for case, row in zip(unlabelled, rows, strict=True):
            volumes = [row.volumes[column] for column in columns]
            expected = [row.expected_dice.get(column, 0.0) for column in columns]
            doubtful = doubtful_masks(volumes, expected, usual)
            image = load_image(case.image)
            mask = load_label(taught / f"{case.stem}_seg.nii.gz", image)
            scans.append(self._scan(case.stem, image, mask, doubtful))
        return scans, usual


def _differs(path: Path, stems: list[str]) -> bool:
    """Whether a fit of other scans was noted in a file; where none was, these are."""
    if not path.is_file():
        atomic_write_text(path, json.dumps(stems))
    return parse_json(path.read_text(encoding="utf-8")) != stems


def _draw_changes(output: Path, cases: Sequence[Case], pack: SupportPack) -> None:
    """Draw the scans whose masks changed most, the teacher's white and dashed.

    Scans without both masks are left out, and pictures of a former fit taken away.
    """
    places = output / "teacher", output
    files = {case.stem: [each / f"{case.stem}_seg.nii.gz" for each in places] for case in cases}

    def masks(case: Case, image: Volume) -> list[np.ndarray]:
        return [np.asarray(load_label(path, image).data) for path in files[case.stem]]

    alike: dict[str, float] = {}
    for case in cases:
        if all(path.is_file() for path in files[case.stem]):
            both = masks(case, load_image(case.image))
            pairs = [[mask == each.value for mask in both] for each in pack.structures]
            # a structure that neither shows is the same in both
            dice = [mask_dice(*pair) for pair in pairs if any(mask.any() for mask in pair)]
            alike[case.stem] = float(np.mean(dice)) if dice else 1.0
    changed = [stem for stem, dice in alike.items() if dice < 1]
    chosen = sorted(changed, key=alike.__getitem__)[:_MOST_CHANGES]
    with writing(output / "changes"):
        (output / "changes").mkdir(parents=True, exist_ok=True)
        for case in cases:
            path = output / "changes" / f"{case.stem}.png"
            if case.stem not in chosen:
                path.unlink(missing_ok=True)
                continue
            image = load_image(case.image)
            was, now = masks(case, image)  # again: all would fill the memory
            title = f"{case.stem}: before (dashed) and after the fit, Dice {alike[case.stem]:.2f}"
            rule = pack.normalisation
            save_overlay(path, image, now, pack.structures, pack.grid, title, rule, truth=was)
