"""A MONAI evaluator that scores a fold by EP1 (`ep1-alp`) and label-blind."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.evaluation.ep1 import Ep1Row, score_case
from fsmis_components.evaluation.tables import format_table, mean_over_folds, write_rows
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.support.encode import build_support_pack
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import (
    SupportSet,
    Wanted,
    label_names,
    support_set_of_cases,
)


def labelled_items(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Labelled cases as MONAI data items: "image" and "label" are paths, "case" is the case."""
    return [
        {CommonKeys.IMAGE: str(case.image), CommonKeys.LABEL: str(case.label), "case": case}
        for case in cases
    ]


class Ep1Evaluator(SupervisedEvaluator):
    """Score the test cases of a fold; write `ep1_fold<i>.csv` and print the means.

    `state.output` of a case holds "pred" and "label", (1, N, D, H, W) of 0 and 1 at the working
    resolution, empty outside the scored slices, so that MONAI's `MeanDice` over them is the EP1
    Dice; "rows" also has the mask-copy floor and the whole-volume Dice.

    Args:
        device: where the network lies.
        dataset: dataset whose `data` are `labelled_items`; it is not asked to load them.
        network: a network of the contract.
        support_cases: the labelled scans of the fold.
        output_dir: receives the table.
        fold: number of the fold, for the table.
        dataset_dir: folder whose `dataset.json` may name the structures.
        structures: as in `load_support_set`.
        spatial_size: as in `build_support_pack`.
        modality: as in `build_support_pack`.
        slice_axis: as in `build_support_pack`.
        ignore_spacing: as in `build_support_pack`.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        whole_volume: also score label-blind.
        key_val_metric: ignite metric on `state.output`.
        val_handlers: ignite handlers.
        progress: show a bar.
    """

    def __init__(
        self,
        device: torch.device | str,
        dataset: Any,
        network: nn.Module,
        support_cases: Sequence[Case],
        output_dir: str | Path,
        fold: int | None = None,
        dataset_dir: str | Path | None = None,
        structures: Wanted = None,
        spatial_size: int = 256,
        modality: str = "auto",
        slice_axis: str | int = "auto",
        ignore_spacing: bool = False,
        batch_size: int = 8,
        amp: bool = False,
        whole_volume: bool = True,
        key_val_metric: dict[str, Any] | None = None,
        val_handlers: Sequence[Any] | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__(
            device=torch.device(device),
            val_data_loader=list(dataset.data),
            network=network,
            key_val_metric=key_val_metric,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.logger.setLevel(logging.WARNING)  # ignite's start and end lines break the bar
        self.items = list(dataset.data)
        self.support_cases = support_cases
        self.output_dir = Path(output_dir)
        self.fold = -1 if fold is None else fold
        self.dataset_dir = dataset_dir
        self.structures = structures
        self.geometry = {
            "spatial_size": spatial_size,
            "modality": modality,
            "slice_axis": slice_axis,
            "ignore_spacing": ignore_spacing,
        }
        self.batch_size = batch_size
        self.amp = amp
        self.whole_volume = whole_volume
        self.progress = progress
        self.rows: list[Ep1Row] = []
        self._support: tuple[SupportSet, SupportPack] | None = None
        self._bar = tqdm(disable=True)

    @exit_on_data_error
    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Score all cases.

        Raises:
            SystemExit: there is no labelled fold, or a scan or label cannot be used.
        """
        if not self.support_cases or not self.items:
            raise DataError("evaluation needs a support and test cases: name a fold with --fold.")
        self.rows = []
        self._support = self._encode_support()
        with tqdm(
            total=len(self.items), desc="scoring", unit="scan", disable=not self.progress
        ) as bar:
            self._bar = bar
            super().run(global_epoch)
        path = write_rows(self.rows, self.output_dir / f"ep1_fold{self.fold}.csv")
        tqdm.write(
            f"Dice in percent, fold {self.fold}, support {self.rows[0].support}, rule ep1-alp\n"
            f"{format_table(mean_over_folds(self.rows))}\n{path}"
        )

    def _encode_support(self) -> tuple[SupportSet, SupportPack]:
        support = support_set_of_cases(
            self.support_cases,
            structures=self.structures,
            names=label_names(self.dataset_dir) if self.dataset_dir else None,
        )
        pack = build_support_pack(
            self.network,
            support,
            **self.geometry,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            amp=self.amp,
        )
        return support, pack

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Score one case; ignite calls this for each item."""
        if self._support is None:
            raise RuntimeError("Ep1Evaluator: call run(), which encodes the support first")
        support, pack = self._support
        blind = VolumeInferer(pack, batch_size=self.batch_size, amp=self.amp)
        score = score_case(
            self.network,
            batchdata["case"],
            support,
            pack,
            inferer=blind if self.whole_volume else None,
            fold=self.fold,
            batch_size=self.batch_size,
            amp=self.amp,
        )
        self.rows += score.rows
        engine.state.output = {
            CommonKeys.IMAGE: batchdata[CommonKeys.IMAGE],
            CommonKeys.PRED: score.predicted.movedim(1, 0)[None].float(),
            CommonKeys.LABEL: score.labelled.movedim(1, 0)[None].float(),
            "rows": score.rows,
        }
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        self._bar.update()
        return engine.state.output
