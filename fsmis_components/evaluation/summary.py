"""From rows of single cases to the numbers of the tables: means, spreads, comparisons.

The unit of all statistics is a case within its fold (under `ep1-qnet` some cases lie in two folds):
several choices of support are averaged per unit first, and the mean over structures is taken within
each unit before units are averaged. Undefined rows enter no mean but are counted; rows of an absent
structure enter with their defined figures and are counted as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fsmis_components.data.errors import DataError
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
UNIT = ["fold", "case"]
_SPREAD = ("mean", "sd", "low", "high")


class Key(NamedTuple):
    """What rows of one group share."""

    method: str
    setting: str
    labelled: str
    shots: int
    protocol: str


def rows_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table, one line each, sorted by fold, case, label value and choice of support."""
    table = pd.DataFrame(map(asdict, rows), columns=[entry.name for entry in fields(Row)])
    return table.sort_values([*UNIT, "value", "choice"], kind="stable", ignore_index=True)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers of the tables, as JSON values; the order of the rows does not matter.

    Args:
        rows: rows of any number of methods, settings, protocols and supports.

    Returns:
        "groups": per method, setting, labelled slices, shots and protocol the folds and choices
        that were run, and per structure and for the mean over structures the units ("cases"), how
        many of them lack a structure ("absent") or were left out ("undefined"), and of each figure
        mean, sd and 95 % interval (None where no unit is left). "fold_dice" holds the mean Dice of
        each fold, "support_choice_range" that of the worst and of the best choice, where there are
        several.
        "wv_gaps": per method, setting, labelled slices and shots, Dice with the extent told
        ("told": the rule of EP1, or "oracle" where EP1 has no figure) minus whole-volume Dice.
        "comparisons": Dice of two methods under the same protocol, setting, slices and shots. A
        method that was not trained is compared under every setting. Both are taken on the
        structures and choices of support that the two sides share; without any there is no entry.

    Raises:
        ValueError: an unknown protocol, or a row whose figures are not finite though its status
            says that it has some.
        DataError: a row occurs twice.
    """
    table = rows_frame(rows)
    _check(table)
    found = {Key(*key): own for key, own in table.groupby([*Key._fields], sort=False)}
    groups = {key: found[key] for key in sorted(found, key=_place)}
    dice = {key: _dice(own) for key, own in groups.items()}
    return {
        "groups": [_group(key, own) for key, own in groups.items()],
        "wv_gaps": _wv_gaps(dice),
        "comparisons": _comparisons(dice),
    }


def unit_means(table: pd.DataFrame, figures: Sequence[str] = ("dice",)) -> pd.DataFrame:
    """Figures per unit: mean over choices of support, then over its defined structures.

    Args:
        table: rows as of `rows_frame`, of one group.
        figures: columns.

    Returns:
        A column per figure, by fold and case.
    """
    defined = table[table.status != UNDEFINED]
    per_structure = defined.groupby([*UNIT, "structure"], sort=False)[[*figures]].mean()
    return per_structure.groupby(UNIT).mean()


def _check(table: pd.DataFrame) -> None:
    unknown = table[~table.protocol.isin(PROTOCOLS)]
    if len(unknown):
        raise ValueError(
            f"summarise: expected a protocol of {PROTOCOLS}, got {unknown.protocol.iloc[0]}"
        )
    identity = [*Key._fields, *UNIT, "choice", "structure"]
    for row in table[table.duplicated(identity)].itertuples():
        raise DataError(
            f"results: {row.method} has case {row.case}, structure {row.structure} twice for one "
            "fold and support; leave one of the results folders out."
        )
    figures = table.loc[table.status != UNDEFINED, [*FIGURES]].to_numpy(float)
    if not np.isfinite(figures).all():
        raise ValueError(f"summarise: expected finite figures, got {figures.tolist()}")


def _place(key: Key) -> tuple[Any, ...]:
    """Place in the tables: the floor first, three slices before all, EP1 before the rest."""
    first = (key.method != FLOOR, key.method, key.setting, key.labelled == "all")
    return (*first, key.shots, PROTOCOLS.index(key.protocol))


def _group(key: Key, rows: pd.DataFrame) -> dict[str, Any]:
    by_value = rows.sort_values("value", kind="stable").groupby("structure", sort=False)
    means = unit_means(rows).dice
    group: dict[str, Any] = {
        **key._asdict(),
        "choices": sorted(rows.choice.unique().tolist()),
        "folds": sorted(rows.fold.unique().tolist()),
        "structures": {str(name): _described(own) for name, own in by_value},
        "mean": _described(rows),
        "fold_dice": {str(fold): value for fold, value in means.groupby("fold").mean().items()},
    }
    if len(group["choices"]) > 1:
        per_choice = [unit_means(own).dice.mean() for _, own in rows.groupby("choice")]
        if known := [float(value) for value in per_choice if np.isfinite(value)]:
            group["support_choice_range"] = {"lowest": min(known), "highest": max(known)}
    return group


def _described(rows: pd.DataFrame) -> dict[str, Any]:
    """Numbers of units, and mean, sd and interval of each figure over them."""
    units = rows[UNIT].apply(tuple, axis=1)
    counts = {
        "cases": units[rows.status != UNDEFINED].nunique(),
        "absent": units[rows.status == ABSENT].nunique(),
        "undefined": units[rows.status == UNDEFINED].nunique(),
    }
    table = unit_means(rows, FIGURES)
    if table.empty:
        return {**counts, **{figure: dict.fromkeys(_SPREAD) for figure in FIGURES}}
    spreads = {figure: asdict(describe(table[figure])) for figure in FIGURES}
    return counts | {
        figure: {name: spread[name] for name in _SPREAD} for figure, spread in spreads.items()
    }


def _dice(rows: pd.DataFrame) -> pd.Series:
    """Defined Dice by fold, case, structure and choice of support."""
    return rows[rows.status != UNDEFINED].set_index([*UNIT, "structure", "choice"]).dice


def _compared(first: pd.Series, second: pd.Series) -> dict[str, Any] | None:
    """First minus second, unit by unit, on what both have; None where that is nothing."""
    shared = pd.concat([first, second], axis=1, join="inner", keys=["first", "second"])
    if shared.empty:
        return None
    means = shared.groupby([*UNIT, "structure"], sort=False).mean().groupby(UNIT).mean()
    comparison = paired_comparison(means["first"].to_dict(), means["second"].to_dict())
    return {"figure": "dice", **asdict(comparison)}


def _wv_gaps(dice: Mapping[Key, pd.Series]) -> list[dict[str, Any]]:
    gaps = []
    for key, blind in dice.items():
        if key.protocol != WHOLE_VOLUME:
            continue
        same = {name: value for name, value in key._asdict().items() if name != "protocol"}
        rules = [rule for rule in EP1_RULES if key._replace(protocol=rule) in dice]
        for told in rules or [ORACLE]:
            gap = _compared(dice.get(key._replace(protocol=told), blind[:0]), blind)
            if gap is not None:
                gaps.append({**same, "told": told, **gap})
    return gaps


def _comparisons(dice: Mapping[Key, pd.Series]) -> list[dict[str, Any]]:
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
