"""A MONAI evaluator that scores a fold by EP1 (`ep1-alp`) and label-blind."""

from __future__ import annotations

import logging
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
from fsmis_components.data.geometry import choose_slice_grid
from fsmis_components.evaluation.protocols import (
    RULES,
    Task,
    answer,
    load_query,
    make_rows,
    with_labelled_slices,
)
from fsmis_components.evaluation.records import WHOLE_VOLUME, Row, write_rows
from fsmis_components.evaluation.subjects.bundle import NetworkSubject
from fsmis_components.evaluation.subjects.mask_copy import MaskCopy
from fsmis_components.support.support_set import Wanted, label_names, support_set_of_cases

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
        dataset: its `data` are `labelled_items`; it is not asked to load them.
        network: a network of the contract.
        support_cases: the labelled scans of the fold.
        output_dir: receives the table.
        fold: for the table.
        dataset_dir: folder whose `dataset.json` may name the structures.
        structures: as in `load_support_set`.
        amp: bfloat16 autocast.
        whole_volume: also score label-blind.
        key_val_metric, val_handlers: of ignite, on `state.output`.
        progress: show a bar.
        geometry: `spatial_size`, `modality`, `slice_axis`, `ignore_spacing` of
            `build_support_pack`.
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
        amp: bool = False,
        whole_volume: bool = True,
        key_val_metric: dict[str, Any] | None = None,
        val_handlers: Sequence[Any] | None = None,
        progress: bool = True,
        **geometry: Any,
    ) -> None:
        self.items = list(dataset.data)
        super().__init__(
            device=torch.device(device),
            val_data_loader=self.items,
            network=network,
            key_val_metric=key_val_metric,
            val_handlers=val_handlers,
            decollate=False,
        )
        self.logger.setLevel(logging.WARNING)  # ignite's start and end lines break the bar
        self.output_dir = Path(output_dir)
        self.dataset_dir = dataset_dir
        self.structures = structures
        self.geometry = geometry
        self.progress = progress
        self.rows: list[Row] = []
        self._task = Task(-1 if fold is None else fold, 0, tuple(support_cases), ())
        tested = NetworkSubject(network, geometry=geometry, amp=amp)
        self._network_subject = tested
        # title of the column, who is asked, under which protocol
        self._columns = [("EP1", tested, RULE.name), ("mask copy", MaskCopy(), RULE.name)]
        if whole_volume:
            self._columns.append(("whole volume", tested, WHOLE_VOLUME))

    @exit_on_data_error
    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Score all cases; without a labelled fold, or one that can be used, the command ends."""
        if not self._task.support or not self.items:
            raise DataError("evaluation needs a support and test cases: name a fold with --fold.")
        names = label_names(self.dataset_dir) if self.dataset_dir else None
        support = support_set_of_cases(self._task.support, structures=self.structures, names=names)
        reading = {key: value for key, value in self.geometry.items() if key != "modality"}
        self._grid = choose_slice_grid(support.scans[0].image, **reading)
        self._support = with_labelled_slices(support, self._grid, "sections")
        self._network_subject.forget()
        self.rows = []
        total = len(self.items)
        with tqdm(total=total, desc="scoring", unit="scan", disable=not self.progress) as self._bar:
            super().run(global_epoch)
        fold = self._task.fold
        path = write_rows(self.rows, self.output_dir / f"ep1_fold{fold}.csv")
        tqdm.write(
            f"Dice in percent, fold {fold}, support {self.rows[0].support}, rule {RULE.name}\n"
            f"{self._table()}\n{path}"
        )

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Score one case; ignite calls this for each item."""
        support = self._support
        query = load_query(batchdata["case"], [s.value for s in support.structures], self._grid)
        start = len(self.rows)
        found = []
        for _, subject, protocol in self._columns:
            found.append(answer(subject, protocol, support, query, RULE))
            self.rows += make_rows(found[-1], query, support, protocol, subject, self._task)
        engine.state.output = {
            CommonKeys.IMAGE: batchdata[CommonKeys.IMAGE],
            CommonKeys.PRED: torch.from_numpy(found[0].predicted).movedim(1, 0)[None].float(),
            CommonKeys.LABEL: torch.from_numpy(found[0].truth).movedim(1, 0)[None].float(),
            "rows": self.rows[start:],
        }
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        self._bar.update()
        return engine.state.output

    def _table(self) -> str:
        """Mean Dice per structure: EP1, its floor, and label-blind."""
        names = list(dict.fromkeys(row.structure for row in self.rows))
        lines = [["structure", *names, "mean"]]
        for title, subject, protocol in self._columns:
            dice: dict[str, list[float]] = {name: [] for name in names}
            for row in self.rows:
                if (row.method, row.protocol) == (subject.name, protocol) and row.dice == row.dice:
                    dice[row.structure].append(row.dice)
            means = [float(np.mean(values)) for values in dice.values() if values]
            cells = [f"{np.mean(values):.2f}" if values else "-" for values in dice.values()]
            lines.append([title, *cells, f"{np.mean(means):.2f}" if means else "-"])
        width = max(map(len, lines[0]))
        return "\n".join(
            f"{name:<{width}}  " + "  ".join(f"{cell:>12}" for cell in cells)
            for name, *cells in zip(*lines, strict=True)
        )
