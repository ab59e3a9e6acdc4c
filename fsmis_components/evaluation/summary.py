"""From rows of single cases to the numbers of the tables: means, spreads, comparisons.

The unit of all statistics is a case within its fold (under `ep1-qnet` some cases lie in two folds):
several choices of support are averaged per unit first, and the mean over structures is taken within
each unit before units are averaged. Undefined rows enter no mean but are counted; rows of an absent
structure enter with their defined figures and are counted as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from fsmis_components.evaluation.records import (
    ABSENT,
    FIGURES,
    ORACLE,
    UNDEFINED,
    WHOLE_VOLUME,
    Row,
)
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.statistics import describe, paired_comparison

EP1_RULES = tuple(RULES)
PROTOCOLS = (*EP1_RULES, ORACLE, WHOLE_VOLUME)
FLOOR = "mask_copy"  # name of the subject that methods are measured against
UNTRAINED = "-"  # the setting of a method that was not trained

Unit = tuple[int, str]  # fold, case
Figures = dict[Unit, np.ndarray]  # per unit the figures in the order of FIGURES
Dice = dict[tuple[int, str, str, int], float]  # by fold, case, structure, choice of support


class _Key(NamedTuple):
    """What rows of one group share."""

    method: str
    setting: str
    labelled: str
    shots: int
    protocol: str


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers of the tables, as JSON values; the order of the rows does not matter.

    Args:
        rows: rows of any number of methods, settings, protocols and supports.

    Returns:
        "groups": per method, setting, labelled slices, shots and protocol the folds and choices
        that were run, and per structure and for the mean over structures the units ("cases"), how
        many of them lack a structure ("absent") or were left out ("undefined"), and of each figure
        mean, sd and 95 % interval (None where no unit is left). "fold_dice" holds the mean Dice of
        each fold. "support_choice_range" holds the
        mean Dice of the worst and of the best choice, where there are several.
        "wv_gaps": per method, setting, labelled slices and shots, Dice with the extent told
        ("told": the rule of EP1, or "oracle" where EP1 has no figure) minus whole-volume Dice.
        "comparisons": Dice of two methods under the same protocol, setting, slices and shots. A
        method that was not trained is compared under every setting. Both are taken on the
        structures and choices of support that the two sides share; without any there is no entry.

    Raises:
        ValueError: an unknown protocol, a row that occurs twice, or one whose figures are not
            finite though its status says that it has some.
    """
    _check(rows)
    grouped: dict[_Key, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.fold, row.case, row.value, row.choice)):
        key = _Key(row.method, row.setting, row.labelled, row.shots, row.protocol)
        grouped[key].append(row)
    groups = {key: grouped[key] for key in sorted(grouped, key=_place)}
    dice = {key: _dice(own) for key, own in groups.items()}
    return {
        "groups": [_group(key, own) for key, own in groups.items()],
        "wv_gaps": _wv_gaps(dice),
        "comparisons": _comparisons(dice),
    }


def _check(rows: Sequence[Row]) -> None:
    seen = set()
    for row in rows:
        if row.protocol not in PROTOCOLS:
            raise ValueError(f"summarise: expected a protocol of {PROTOCOLS}, got {row.protocol}")
        group = (row.method, row.setting, row.labelled, row.shots, row.protocol)
        key = (*group, row.fold, row.choice, row.case, row.structure)
        if key in seen:
            raise ValueError(f"summarise: expected each row once, got two of {key}")
        seen.add(key)
        if row.status != UNDEFINED and not np.isfinite(_figures(row)).all():
            raise ValueError(f"summarise: expected finite figures, got {_figures(row)} of {key}")


def _place(key: _Key) -> tuple[Any, ...]:
    """Place in the tables: the floor first, three slices before all, EP1 before the rest."""
    first = (key.method != FLOOR, key.method, key.setting, key.labelled == "all")
    return (*first, key.shots, PROTOCOLS.index(key.protocol))


def _figures(row: Row) -> np.ndarray:
    return np.array([getattr(row, figure) for figure in FIGURES])


def _group(key: _Key, rows: Sequence[Row]) -> dict[str, Any]:
    choices = sorted({row.choice for row in rows})
    group: dict[str, Any] = {
        **key._asdict(),
        "choices": choices,
        "folds": sorted({row.fold for row in rows}),
        "structures": {
            name: {**_counts(own), **_described(_per_unit(own))}
            for name, own in _by_structure(rows).items()
        },
        "mean": {**_counts(rows), **_described(_over_structures(rows))},
        "fold_dice": _fold_dice(rows),
    }
    if len(choices) > 1:
        per_choice = [_unit_means(_dice(row for row in rows if row.choice == c)) for c in choices]
        means = [float(np.mean(list(units.values()))) for units in per_choice if units]
        if means:
            group["support_choice_range"] = {"lowest": min(means), "highest": max(means)}
    return group


def _fold_dice(rows: Sequence[Row]) -> dict[str, float]:
    """Mean Dice of each fold that has a figure, by its number."""
    found: dict[str, list[float]] = defaultdict(list)
    for (fold, _), figures in sorted(_over_structures(rows).items()):
        found[str(fold)].append(figures[FIGURES.index("dice")])
    return {fold: float(np.mean(values)) for fold, values in found.items()}


def _by_structure(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows per structure, in the order of the label values."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.value):  # stable: units stay in their order
        found[row.structure].append(row)
    return found


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    """Units with figures, with an absent structure, and with a structure left out."""
    return {
        "cases": len({_unit(row) for row in rows if row.status != UNDEFINED}),
        "absent": len({_unit(row) for row in rows if row.status == ABSENT}),
        "undefined": len({_unit(row) for row in rows if row.status == UNDEFINED}),
    }


def _unit(row: Row) -> Unit:
    return row.fold, row.case


def _per_unit(rows: Iterable[Row]) -> Figures:
    """Figures of one structure, averaged over choices of support; undefined rows left out."""
    found: dict[Unit, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        if row.status != UNDEFINED:
            found[_unit(row)].append(_figures(row))
    return {unit: np.mean(figures, axis=0) for unit, figures in found.items()}


def _over_structures(rows: Sequence[Row]) -> Figures:
    """Mean figures of each unit over its defined structures."""
    found: dict[Unit, list[np.ndarray]] = defaultdict(list)
    for own in _by_structure(rows).values():
        for unit, figures in _per_unit(own).items():
            found[unit].append(figures)
    return {unit: np.mean(figures, axis=0) for unit, figures in found.items()}


def _dice(rows: Iterable[Row]) -> Dice:
    return {
        (row.fold, row.case, row.structure, row.choice): row.dice
        for row in rows
        if row.status != UNDEFINED
    }


def _unit_means(dice: Dice) -> dict[str, float]:
    """Dice per unit: mean over choices of support, then over structures."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (fold, case, structure, _), value in dice.items():
        found[f"fold {fold}, case {case}"][structure].append(value)
    return {
        unit: float(np.mean([np.mean(values) for values in structures.values()]))
        for unit, structures in found.items()
    }


def _compared(first: Dice, second: Dice) -> dict[str, Any] | None:
    """First minus second, unit by unit, on what both have; None where that is nothing."""
    shared = [entry for entry in first if entry in second]
    if not shared:
        return None
    means = [_unit_means({entry: dice[entry] for entry in shared}) for dice in (first, second)]
    return {"figure": "dice", **asdict(paired_comparison(*means))}


def _described(figures: Figures) -> dict[str, dict[str, float | None]]:
    """Mean, sd and interval of each figure over units."""
    if not figures:
        return {name: dict.fromkeys(("mean", "sd", "low", "high")) for name in FIGURES}
    table = np.array(list(figures.values()))  # (units, figures)
    described = {}
    for name, column in zip(FIGURES, table.T, strict=True):
        spread = asdict(describe(column))
        described[name] = {key: spread[key] for key in ("mean", "sd", "low", "high")}
    return described


def _wv_gaps(dice: Mapping[_Key, Dice]) -> list[dict[str, Any]]:
    gaps = []
    for key, blind in dice.items():
        if key.protocol != WHOLE_VOLUME:
            continue
        same = {name: value for name, value in key._asdict().items() if name != "protocol"}
        rules = [rule for rule in EP1_RULES if key._replace(protocol=rule) in dice]
        for told in rules or [ORACLE]:
            gap = _compared(dice.get(key._replace(protocol=told), {}), blind)
            if gap is not None:
                gaps.append({**same, "told": told, **gap})
    return gaps


def _comparisons(dice: Mapping[_Key, Dice]) -> list[dict[str, Any]]:
    # trained methods come first and the floor last, so that a gain is a positive difference
    ordered = sorted(dice, key=lambda key: (key.setting == UNTRAINED, key.method == FLOOR))
    found = []
    for first, second in combinations(ordered, 2):
        settings = {first.setting, second.setting} - {UNTRAINED}
        same_task = first[2:] == second[2:]  # labelled slices, shots, protocol
        if first.method == second.method or not same_task or len(settings) > 1:
            continue
        comparison = _compared(dice[first], dice[second])
        if comparison is not None:
            entry = {
                "protocol": first.protocol,
                "setting": min(settings, default=UNTRAINED),
                "labelled": first.labelled,
                "shots": first.shots,
                "first": first.method,
                "second": second.method,
            }
            found.append({**entry, **comparison})
    return sorted(found, key=_comparison_place)


def _comparison_place(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    protocol = PROTOCOLS.index(entry["protocol"])
    return entry["setting"], protocol, entry["labelled"] == "all", entry["shots"]
