"""The cases that a training config learns from, found in one folder or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from fsmis_components.data.cases import search_cases
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.folds import FoldSplit, fold_split


@exit_on_data_error
def training_split(
    dataset_dir: str | Path | Sequence[str | Path],
    fold: int | None = None,
    labels: Literal["required", "optional", "never"] = "never",
    left_out: Mapping[str, Sequence[str]] | None = None,
) -> FoldSplit:
    """Find the training cases of each folder and split them.

    Args:
        dataset_dir: a folder or several; several are drawn from with equal chance.
        fold: see :func:`fold_split`; None trains on all cases but one per folder.
        labels: ``required`` where Setting 2 leaves out slices by their labels.
        left_out: per name of a folder the cases that no training may see; they are the held-out
            cases of that folder.

    Raises:
        SystemExit: a folder cannot be used; the message says why.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    found = [search_cases(folder, labels=labels, section="training") for folder in folders]
    for one in found:
        one.tell()
    splits = []
    for folder, one in zip(folders, found, strict=True):
        cases = one.cases
        names = set((left_out or {}).get(Path(folder).name, ()))
        if not names:
            splits.append(fold_split(cases, fold))
            continue
        missing = names - {case.name for case in cases}
        if missing or fold is not None:
            raise DataError(
                f"{folder}: left_out names {', '.join(sorted(missing)) or 'cases'}, but "
                f"{'no such case lies there' if missing else 'a fold leaves out its own'}; "
                "correct --left_out."
            )
        inside = tuple(case for case in cases if case.name not in names)
        outside = tuple(case for case in cases if case.name in names)
        splits.append(FoldSplit(inside, outside, (), ()))
    return FoldSplit(
        train=tuple(case for split in splits for case in split.train),
        held_out=tuple(case for split in splits for case in split.held_out),
        support=tuple(case for split in splits for case in split.support),
        test=tuple(case for split in splits for case in split.test),
    )
