"""The cases that a training config learns from, found in one folder or in several."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fsmis_components.data.cases import Case, search_cases
from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.data.geometry import SliceGrid, SliceView
from fsmis_components.data.volumes import Volume, load_label

RULES = ("any", "all")


class FoldSplit(NamedTuple):
    """The cases of one fold."""

    train: tuple[Case, ...]  # cases whose images may be learned from
    held_out: tuple[Case, ...]  # cases of the pseudo-label episodes that choose the best weights
    support: tuple[Case, ...] = ()  # the labelled case of the test
    test: tuple[Case, ...] = ()  # the query cases


def fold_split(cases: Sequence[Case], fold: int | None, num_folds: int = 5) -> FoldSplit:
    """Split cases by the rule of SSL-ALPNet (``ep1-alp``).

    Cases are in the finder's order (sorted by number). Fold i tests cases sep[i] .. sep[i+1]-1,
    its support is the next case (wrapping), the rest trains. The support case is seen by neither
    training nor test, so it serves as the held-out case. Without a fold nothing is tested and the
    last case is held out. No such fold, or too few cases for the folds, is a `DataError`.
    """
    if fold is None:
        return FoldSplit(tuple(cases[:-1] or cases), tuple(cases[-1:]))
    if not 0 <= fold < num_folds:
        raise DataError(f"fold: expected a number from 0 to {num_folds - 1}, got {fold}.")
    if len(cases) <= num_folds:
        raise DataError(
            f"fold: {num_folds} folds need more than {num_folds} cases, {len(cases)} were found; "
            "name a larger --dataset_dir or leave --fold out."
        )
    borders = [round(i * len(cases) / num_folds) for i in range(num_folds + 1)]
    test = tuple(cases[borders[fold] : borders[fold + 1]])
    support = cases[borders[fold + 1] % len(cases)]
    train = tuple(c for c in cases if c not in test and c != support)
    return FoldSplit(train, (support,), (support,), test)


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
    splits = []
    for folder in folders:
        found = search_cases(folder, labels=labels, section="training")
        found.tell()
        names = set((left_out or {}).get(Path(folder).name, ()))
        if not names:
            splits.append(fold_split(found.cases, fold))
            continue
        missing = names - {case.name for case in found.cases}
        if fold is not None or missing:
            raise DataError(
                f"{folder}: left_out names {', '.join(sorted(missing or names))}, but no such case "
                "lies there, or a fold leaves out its own; correct --left_out."
            )
        inside = tuple(case for case in found.cases if case.name not in names)
        outside = tuple(case for case in found.cases if case.name in names)
        splits.append(FoldSplit(inside, outside))
    return FoldSplit(*(tuple(itertools.chain(*parts)) for parts in zip(*splits, strict=True)))


def shown_structures(
    case: Case, volume: Volume, grid: SliceGrid, values: Sequence[int]
) -> np.ndarray:
    """Whether each slice, in the order of `SliceView`, shows each of N values, bool (N, D).

    A scan without a label that can be read is a `DataError`.
    """
    if case.label is None:
        raise DataError(
            f"{case.image}: setting 2 leaves out slices by their labels and this scan has none; "
            "add its label or use --setting 1."
        )
    slices = SliceView(load_label(case.label, volume), grid).native_labels()
    return np.stack([(slices == value).any((1, 2)) for value in values])


def excluded(shown: np.ndarray, rule: str) -> np.ndarray:
    """Whether each slice is left out of a training, bool (D,).

    The rule leaves out a slice that shows "any" (SSL-ALPNet) or only "all" of the structures of
    `shown_structures`; another word is a `DataError`.
    """
    if rule not in RULES:
        raise DataError(f"exclude_rule: expected any or all, got {rule!r}.")
    return np.all(shown, axis=0) if rule == "all" else np.any(shown, axis=0)
