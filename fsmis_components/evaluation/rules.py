"""The field's two rules of EP1: which scan supports which queries, and what the label tells.

EP1 tells a method where each structure begins and ends in the query, from the query's own label. It
serves to compare with papers. The rules differ in support, scored slices and thirds, so their
figures never share a column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fsmis_components.data.cases import Case
from fsmis_components.data.errors import DataError
from fsmis_components.data.training_cases import fold_split
from fsmis_components.support.sections import NUM_SECTIONS, section_of_slice


@dataclass(frozen=True)
class Task:
    """The queries of a fold with one choice of support.

    Attributes:
        fold: number of the fold.
        choice: which choice of support.
        support: the labelled scans.
        queries: the cases to segment.
    """

    fold: int
    choice: int
    support: tuple[Case, ...]
    queries: tuple[Case, ...]


class Ep1Rule(ABC):
    """A named rule of EP1.

    Attributes:
        name: "ep1-alp" or "ep1-qnet".
        default_choice: the choice of support that the papers' code makes.
    """

    name: str
    default_choice: int

    @abstractmethod
    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """The support and the queries of a fold.

        Args:
            cases: all labelled cases in the finder's order, by number.
            fold: number of the fold.
            num_folds: number of folds.
            shots: number K of support scans.
            choice: which choice of support, from 0.

        Raises:
            DataError: the rule has no such fold, number of shots or choice.
        """

    @abstractmethod
    def sections(self, present: np.ndarray) -> torch.Tensor:
        """Third of the true extent in which each query slice lies.

        Args:
            present: bool (D, N), does slice d hold structure n.

        Returns:
            (D, N), 0, 1 or 2; -1 where the slice is not scored.
        """


class AlpRule(Ep1Rule):
    """SSL-ALPNet's rule (released code, `methods` in its paper's section on evaluation).

    Folds are disjoint; the support of a fold is the next case (choice c: c cases further), K shots
    are K consecutive cases. Every slice from the first to the last that holds a structure is
    scored, in thirds of that range.
    """

    name = "ep1-alp"
    default_choice = 0

    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """See `Ep1Rule.task`."""
        test = fold_split(cases, fold, num_folds).test
        free = len(cases) - len(test)
        if shots < 1 or choice < 0 or choice + shots > free:
            raise DataError(
                f"ep1-alp: {shots} support scans at choice {choice} are not to be had beside the "
                f"{len(test)} queries of fold {fold} among {len(cases)} cases; lower --shots or "
                "--choices."
            )
        start = cases.index(test[-1]) + 1 + choice
        support = tuple(cases[(start + shot) % len(cases)] for shot in range(shots))
        return Task(fold, choice, support, test)

    def sections(self, present: np.ndarray) -> torch.Tensor:
        """See `Ep1Rule.sections`."""
        chosen = torch.full(present.shape, -1, dtype=torch.long)
        for structure, column in enumerate(present.T):
            own = np.flatnonzero(column).tolist()
            for index in range(own[0], own[-1] + 1) if own else ():
                chosen[index, structure] = section_of_slice(index, own[0], own[-1])
        return chosen


class QnetRule(Ep1Rule):
    """The rule of Q-Net's released code and of those that descend from it.

    The list of a fold is its cases and the first of the next fold, by number; one case of the list
    (choice 2 in the released scripts) supports the others. Only slices that hold a structure are
    scored, in three equal parts. Lists overlap, so some cases are tested twice and some never.
    """

    name = "ep1-qnet"
    default_choice = 2

    def task(
        self, cases: Sequence[Case], fold: int, *, num_folds: int, shots: int, choice: int
    ) -> Task:
        """See `Ep1Rule.task`."""
        split = fold_split(cases, fold, num_folds)
        # by number, also in the last fold, whose extra case is the first of all
        own = sorted(split.test + split.support, key=cases.index)
        if shots != 1:
            raise DataError(f"ep1-qnet: the rule has one support scan, got {shots}; use ep1-alp.")
        if not 0 <= choice < len(own):
            raise DataError(
                f"ep1-qnet: fold {fold} has the choices of support 0 to {len(own) - 1}, got "
                f"{choice}; change --choices."
            )
        queries = tuple(case for index, case in enumerate(own) if index != choice)
        return Task(fold, choice, (own[choice],), queries)

    def sections(self, present: np.ndarray) -> torch.Tensor:
        """See `Ep1Rule.sections`."""
        chosen = torch.full(present.shape, -1, dtype=torch.long)
        for structure, column in enumerate(present.T):
            own = torch.from_numpy(np.flatnonzero(column))
            borders = [len(own) * part // NUM_SECTIONS for part in range(NUM_SECTIONS + 1)]
            for section in range(NUM_SECTIONS):
                chosen[own[borders[section] : borders[section + 1]], structure] = section
        return chosen


RULES: dict[str, Ep1Rule] = {rule.name: rule for rule in (AlpRule(), QnetRule())}
