"""A MONAI evaluator that segments every scan of a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from tqdm import tqdm

import fsmis_components
from fsmis_components.data.atomic import check_writable, lock_folder
from fsmis_components.data.cases import Case, search_cases
from fsmis_components.data.dicom_seg import highdicom, save_dicom_seg
from fsmis_components.data.errors import DataError, exit_on_data_error, failure_sentence, writing
from fsmis_components.data.file_hash import file_hash
from fsmis_components.data.processes import (
    from_first,
    interrupted_together,
    num_processes,
    process_rank,
    wait_for_all,
)
from fsmis_components.data.run_record import DONE, FAILED, CaseRow, ResultFiles, RunRecord
from fsmis_components.data.volumes import Volume, load_image, save_mask, save_shares
from fsmis_components.inferers.folder_report import write_folder_report
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.reporting.drawing import save_overlay, save_sheets
from fsmis_components.support.source import Correction, Corrections
from fsmis_components.support.support_pack import SupportPack, content_hash

_SHOWN_FAILURES = 5

Ready = Callable[[Path], object]  # called with a mask under its hidden name


class Begun(NamedTuple):
    """What all processes of a run share."""

    pack: SupportPack
    record: RunRecord
    corrected: Mapping[str, Correction]  # by the stem of the scan
    kept: set[str]  # stems of the scans that an earlier run has finished


@exit_on_data_error
def query_items(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """The scans of a folder, in any layout of `find_cases`, as MONAI data items.

    "image" is a scan's path, "case" what else is known of it, "found" what lies in the folder, also
    unused. Label files are neither looked for nor opened. A folder without a scan ends the command.
    """
    found = search_cases(dataset_dir, labels="never")
    return [
        {CommonKeys.IMAGE: str(case.image), "case": case, "found": found} for case in found.cases
    ]


class FolderEvaluator(SupervisedEvaluator):
    """Segment the scans of a dataset and write masks, pictures and a table.

    A scan gets the files of `ResultFiles` (DICOM SEG where `dicom_seg` asks for it, which needs
    highdicom) and a line of `cases.csv`; `report.html` shows them all at the end. A scan that
    fails, for whatever reason, becomes a line with the reason (`errors.log` has the traceback of an
    unforeseen one) and the others go on. Finished scans are kept when the same command is given
    again, also after an interruption; `renews` replaces masks of a run with other settings that
    nobody has changed.

    Several processes of one group (`join_processes`) share the scans out, with the support that the
    first one makes, and write one table and one report, with the masks of one process.

    The data of the dataset are `query_items`, read slab by slab, so transforms of others are
    refused. `postprocessing` is a dictionary transform on "pred", label values (1, X, Y, Z).
    Corrected masks are taken over; `corrections` is the same object that the support has.
    """

    def __init__(
        self,
        device: torch.device | str,
        dataset: Any,
        network: nn.Module,
        inferer: VolumeInferer,
        output_dir: str | Path,
        postprocessing: Any = None,
        val_handlers: Sequence[Any] | None = None,
        progress: bool = True,
        corrections: Corrections | None = None,
        dicom_seg: bool = False,
        renews: bool = False,
    ) -> None:
        super().__init__(
            device=torch.device(device),
            val_data_loader=list(dataset.data),
            network=network,
            inferer=inferer,
            postprocessing=postprocessing,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.logger.setLevel(logging.WARNING)  # ignite's start and end lines break the bar
        self.volume_inferer = inferer
        self.preprocessing = getattr(dataset, "transform", None)
        self.output_dir = Path(output_dir)
        self.progress = progress
        self.corrections = corrections
        self.dicom_seg = dicom_seg
        self.renews = renews
        self._begun: Begun  # since `run` was called
        self._own: set[str] = set()  # stems of what is left to do, of several processes by this one
        self._bar = tqdm(disable=True)

    @exit_on_data_error
    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Segment all scans; failed scans, and whatever stops the run, end the command at last."""
        _check_preprocessing(self.preprocessing)
        items = list(self.data_loader)
        cases = [item["case"] for item in items]
        found = items[0]["found"]
        first = process_rank() == 0
        with ExitStack() as lock:
            begun = self._begun = from_first(partial(self._begin, cases, lock))
            pack, record, _, kept = begun
            left = [case for case in cases if case.stem not in kept]
            own = left[process_rank() :: num_processes()]
            if num_processes() > 1:
                record.share(cases, own)
            self._own = {case.stem for case in own}
            if self.progress and first:
                if pack.calibration is not None:
                    found_again = pack.calibration.describe(pack.structures)
                    tqdm.write(f"own labels, hidden and found again, Dice in %: {found_again}")
                found.tell()
                tqdm.write(f"intensities are taken as {pack.normalisation.describe()}")
            interrupted = self._segment_all(begun, found, global_epoch)
        rows = [record.rows[case.stem] for case in cases if case.stem in record.rows]
        failed = [row for row in rows if row.status == FAILED]
        if interrupted:
            raise DataError(
                f"interrupted with {len(rows) - len(failed)} of {len(cases)} scans done; give the "
                "same command again to go on."
            )
        if failed and first:
            shown = [row.message.rstrip(".") for row in failed[:_SHOWN_FAILURES]]
            if len(failed) > len(shown):
                shown.append(f"and {len(failed) - len(shown)} more")
            raise DataError(
                f"{len(failed)} of {len(cases)} scans failed, see {self.output_dir / 'cases.csv'}: "
                f"{'; '.join(shown)}."
            )

    def _begin(self, cases: Sequence[Case], lock: ExitStack) -> Begun:
        """Make the support and open the output folder, which is this run's until `lock` closes."""
        check_writable(self.output_dir)
        if self.dicom_seg:
            highdicom()  # tell that it is missing before the first scan
        pack = self.volume_inferer.resolve(self.network)
        corrected = {} if self.corrections is None else self.corrections.found()
        settings = {
            "support": content_hash(pack),
            "inferer": self.volume_inferer.settings(self.network),
            "version": fsmis_components.__version__,
        }
        if corrected:
            settings["corrections"] = {stem: file_hash(c.mask) for stem, c in corrected.items()}
        columns = [structure.column for structure in pack.structures]
        maps = self.volume_inferer.uncertainty
        record = RunRecord(self.output_dir, columns, settings, maps, self.dicom_seg)
        lock.enter_context(lock_folder(self.output_dir))
        masks = {stem: each.mask for stem, each in corrected.items()}
        record.open(cases, masks, self.renews)
        kept = {case.stem for case in cases if record.finished(case)}
        return Begun(pack, record, corrected, kept)

    def _segment_all(self, begun: Begun, found: Any, global_epoch: int) -> bool:
        """Do what is not done yet; returns whether the keyboard interrupted it."""
        first, record = process_rank() == 0, begun.record
        try:
            # scans of an earlier run cost nothing, so they must not shorten the time that is left
            with (
                interrupted_together(),
                tqdm(
                    total=len(begun.kept) + len(self._own),
                    initial=len(begun.kept),
                    desc="segmenting",
                    unit="scan",
                    disable=not (self.progress and first),
                ) as self._bar,
            ):
                self._segment_left(begun, global_epoch)
                wait_for_all()
        except KeyboardInterrupt:
            return True
        finally:
            # whatever ended the run: what is finished is shown
            record.write()
            if first:
                rows = list(record.rows.values())
                facts = begun.pack, record.settings, found.described()
                with writing(self.output_dir / "report.html"):
                    write_folder_report(self.output_dir, rows, *facts)
        return False

    def _segment_left(self, begun: Begun, global_epoch: int) -> None:
        """Do what is this process's to do."""
        super().run(global_epoch)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Segment one scan; ignite calls this for each item."""
        case: Case = batchdata["case"]
        engine.state.output = {CommonKeys.IMAGE: batchdata[CommonKeys.IMAGE]}
        if case.stem in self._own:
            self._bar.set_postfix_str(case.stem)
            record, correction = self._begun.record, self._begun.corrected.get(case.stem)
            files, ready = record.files(case), lambda mask: record.claim({case: mask})
            row, scan = self._result(case, self._begun.pack, files, ready, correction)
            self._add(record, case, row, scan, made_here=correction is None)
            record.write()
        return engine.state.output

    def segment_case(
        self, case: Case, pack: SupportPack, files: ResultFiles
    ) -> tuple[CaseRow, str]:
        """Segment a scan of another process's run, which keeps the record; as `_result`.

        Post-processing runs, other handlers do not.
        """
        self.state.output = {CommonKeys.IMAGE: str(case.image)}
        self.state.batch = {**self.state.output, "case": case}
        return self._result(case, pack, files)

    def _add(
        self, record: RunRecord, case: Case, row: CaseRow, scan: str, made_here: bool = True
    ) -> None:
        """Take a result up into the record and tell of it."""
        if row.status == FAILED and scan:
            record.discard(case, scan)
        if row.warning and self.progress:
            tqdm.write(f"{case.stem}: {row.warning}")
        record.add(case, row, scan, made_here)
        self._bar.update()

    def _result(
        self,
        case: Case,
        pack: SupportPack,
        files: ResultFiles,
        ready: Ready | None = None,
        correction: Correction | None = None,
    ) -> tuple[CaseRow, str]:
        """Segment one scan or take its corrected mask over; how it went, and the scan's hash."""
        start = time.perf_counter()
        row, scan = CaseRow(case.stem, DONE, 0.0), ""
        try:
            if case.image.exists():
                # before it is read: where it is replaced meanwhile, it is segmented next time
                scan = file_hash(case.image)
            if correction is None:
                image = load_image(case.image)
                label, uncertainty = self._segment(image, pack, row)
            else:
                drawn = correction.load()
                image, label = drawn.image, np.asarray(drawn.label.data)
                uncertainty = np.zeros(label.shape, np.uint8)  # nothing is left to be uncertain of
            _write_beside_mask(files, image, label, uncertainty, pack, row)
            # a corrected mask in its final place is not touched
            if correction is None or correction.mask.resolve() != files.mask.resolve():
                save_mask(files.mask, label, like=image, ready=ready)
        except Exception as error:  # whatever it is, it ends one case and not the whole run
            message = failure_sentence(error, case.image, self.output_dir)
            row = CaseRow(case.stem, FAILED, 0.0, message=message)
        row.seconds = time.perf_counter() - start
        return row, scan

    def _segment(
        self, image: Volume, pack: SupportPack, row: CaseRow
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The post-processed label map of a scan and its uncertainty; the row says how good."""
        result = self.volume_inferer.segment_volume(image, self.network, pack)
        label = torch.from_numpy(np.ascontiguousarray(result.label))[None]
        self.state.output[CommonKeys.PRED] = MetaTensor(label, torch.as_tensor(image.affine))
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)  # runs the post-processing
        final = np.asarray(self.state.output[CommonKeys.PRED])[0]
        row.warning = " ".join(result.warnings)
        row.modality = result.scan.modality
        if result.trust is not None:
            columns = [structure.column for structure in pack.structures]
            row.expected_dice = dict(zip(columns, result.trust.expected_dice, strict=True))
        return final.astype(result.label.dtype, copy=False), result.uncertainty


def _write_beside_mask(
    files: ResultFiles,
    image: Volume,
    label: np.ndarray,
    uncertainty: np.ndarray | None,
    pack: SupportPack,
    row: CaseRow,
) -> None:
    """Write all other files of a scan, and what they show into its row."""
    structures, grid, rule = pack.structures, pack.grid, pack.normalisation
    save_overlay(files.overlay, image, label, structures, grid, files.overlay.stem, rule)
    sheets = (files.scan_sheet, files.mask_sheet)
    row.slices = save_sheets(*sheets, image, label, structures, grid, rule)
    if files.uncertainty is not None and uncertainty is not None:
        save_shares(files.uncertainty, uncertainty, like=image)
    if files.dicom_seg is not None:
        names = {each.value: each.name for each in structures}
        save_dicom_seg(files.dicom_seg, label, image, names)
    row.volumes = {each.column: image.millilitres(label, each.value) for each in structures}


def _check_preprocessing(transform: Any) -> None:
    """Refuse transforms that a person put into `preprocessing`: they would not run."""
    for each in getattr(transform, "transforms", [transform]):
        if each is not None and not type(each).__module__.startswith(fsmis_components.__name__):
            raise DataError(
                f"preprocessing: {type(each).__name__} does not run on a folder of scans, which "
                "are read slab by slab; leave it out and change the scans themselves."
            )
