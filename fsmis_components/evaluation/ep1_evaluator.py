"""A MONAI evaluator that scores a fold by EP1 (`ep1-alp`) and label-blind."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from tqdm import tqdm

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.geometry import SliceGrid, choose_slice_grid
from fsmis_components.evaluation.records import UNDEFINED, WHOLE_VOLUME, Row
from fsmis_components.evaluation.results_folder import write_rows
from fsmis_components.evaluation.rules import RULES, Task
from fsmis_components.evaluation.scoring import (
    Answer,
    Query,
    answer,
    load_query,
    make_rows,
    with_labelled_slices,
)
from fsmis_components.evaluation.subjects.base import Subject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.evaluation.subjects.network import NetworkSubject
from fsmis_components.support.support_set import (
    SupportSet,
    Wanted,
    label_names,
    support_set_of_cases,
)

RULE = RULES["ep1-alp"]


def labelled_items(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Labelled cases as MONAI data items: "image" and "label" are paths, "case" is the case."""
    return [
        {CommonKeys.IMAGE: str(case.image), CommonKeys.LABEL: str(case.label), "case": case}
        for case in cases
    ]


class Ep1Evaluator(SupervisedEvaluator):
    """Score the test cases of a fold; write `ep1_fold<i>.csv` and print the means.

    `state.output` of a case holds "pred" and "label", (1, N, D, h, w) of 0 and 1 on the native
    grid, empty outside the scored slices, so that MONAI's `MeanDice` over them is the EP1
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
        self.whole_volume = whole_volume
        self.progress = progress
        self.rows: list[Row] = []
        self._subject = NetworkSubject(
            network, geometry=self.geometry, batch_size=batch_size, amp=amp
        )
        self._floor = MaskCopy(slice_axis, ignore_spacing)
        self._support: tuple[SupportSet, SliceGrid] | None = None
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
        self._support = self._read_support()
        with tqdm(
            total=len(self.items), desc="scoring", unit="scan", disable=not self.progress
        ) as bar:
            self._bar = bar
            super().run(global_epoch)
        path = write_rows(self.rows, self.output_dir / f"ep1_fold{self.fold}.csv")
        tqdm.write(
            f"Dice in percent, fold {self.fold}, support {self.rows[0].support}, rule {RULE.name}"
            f"\n{self._table()}\n{path}"
        )

    def _read_support(self) -> tuple[SupportSet, SliceGrid]:
        support = support_set_of_cases(
            self.support_cases,
            structures=self.structures,
            names=label_names(self.dataset_dir) if self.dataset_dir else None,
        )
        geometry = {key: value for key, value in self.geometry.items() if key != "modality"}
        grid = choose_slice_grid(support.scans[0].image, **geometry)  # type: ignore[arg-type]
        self._subject.forget()
        return with_labelled_slices(support, grid, "sections"), grid

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Score one case; ignite calls this for each item."""
        if self._support is None:
            raise RuntimeError("Ep1Evaluator: call run(), which reads the support first")
        support, grid = self._support
        query = load_query(batchdata["case"], [s.value for s in support.structures], grid)
        start = len(self.rows)
        told = self._ask(self._subject, RULE.name, query)
        self._ask(self._floor, RULE.name, query)
        if self.whole_volume:
            self._ask(self._subject, WHOLE_VOLUME, query)
        engine.state.output = {
            CommonKeys.IMAGE: batchdata[CommonKeys.IMAGE],
            CommonKeys.PRED: torch.from_numpy(told.predicted).movedim(1, 0)[None].float(),
            CommonKeys.LABEL: torch.from_numpy(told.truth).movedim(1, 0)[None].float(),
            "rows": self.rows[start:],
        }
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        self._bar.update()
        return engine.state.output

    def _ask(self, subject: Subject, protocol: str, query: Query) -> Answer:
        support, _ = self._support  # type: ignore[misc]
        found = answer(subject, protocol, support, query, RULE)
        task = Task(self.fold, 0, tuple(self.support_cases), ())
        self.rows += make_rows(found, query, support, protocol, subject, task)
        return found

    def _table(self) -> str:
        """Mean Dice per structure: EP1, its floor, and label-blind."""
        columns = {
            "EP1": (self._subject.name, RULE.name),
            "mask copy": (self._floor.name, RULE.name),
            "whole volume": (self._subject.name, WHOLE_VOLUME),
        }
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row in self.rows:
            for title, (method, protocol) in columns.items():
                own = (row.method, row.protocol) == (method, protocol)
                if own and row.status != UNDEFINED:
                    found[row.structure, title].append(row.dice)
        names = list(dict.fromkeys(row.structure for row in self.rows))
        means = {key: float(np.mean(values)) for key, values in found.items()}
        for title in columns:
            known = [means[name, title] for name in names if (name, title) in means]
            if known:
                means["mean", title] = float(np.mean(known))
        width = max(len("structure"), *map(len, names))
        lines = [f"{'structure':<{width}}  " + "  ".join(f"{title:>12}" for title in columns)]
        for name in (*names, "mean"):
            cells = (
                f"{means[name, title]:12.2f}" if (name, title) in means else f"{'-':>12}"
                for title in columns
            )
            lines.append(f"{name:<{width}}  " + "  ".join(cells))
        return "\n".join(lines)
