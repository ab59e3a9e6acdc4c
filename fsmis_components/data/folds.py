"""Folds of cross-validation as disjoint lists of cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError


@dataclass(frozen=True)
class FoldSplit:
    """The cases of one fold.

    Attributes:
        train: cases whose images may be learned from.
        held_out: cases of the pseudo-label episodes that choose the best weights.
        support: the labelled case of the test.
        test: the query cases.
    """

    train: tuple[Case, ...]
    held_out: tuple[Case, ...]
    support: tuple[Case, ...]
    test: tuple[Case, ...]


def fold_split(
    cases: Sequence[Case], fold: int | None, num_folds: int = 5, num_held_out: int = 1
) -> FoldSplit:
    """Split cases by the rule of SSL-ALPNet (``ep1-alp``).

    Cases are in the finder's order (sorted by number). Fold i tests cases sep[i] .. sep[i+1]-1,
    its support is the next case (wrapping), the rest trains. The support case is seen by neither
    training nor test, so it serves as the held-out case. Without a fold nothing is tested and
    ``num_held_out`` cases at the end are held out.

    Raises:
        DataError: no such fold, or too few cases for the folds.
    """
    if fold is None:
        count = num_held_out if len(cases) > num_held_out else 0
        train = tuple(cases[: len(cases) - count])
        held_out = tuple(cases[len(cases) - count :]) or train
        return FoldSplit(train, held_out, (), ())
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
