"""From rows of single cases to the numbers of the tables: means, spreads, comparisons.

The unit of all statistics is a case within its fold (under `ep1-qnet` some cases lie in two folds):
several choices of support are averaged per unit first, and the mean over structures is taken within
each unit before units are averaged. Undefined rows enter no mean but are counted; rows of an absent
structure enter with their defined figures and are counted as well. The same rows give the same
bits, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import (
    ABSENT,
    FIGURES,
    ORACLE,
    UNDEFINED,
    WHOLE_VOLUME,
    Row,
)

EP1_RULES = tuple(RULES)
PROTOCOLS = (*EP1_RULES, ORACLE, WHOLE_VOLUME)
FLOOR = "mask_copy"  # name of the subject that methods are measured against
UNTRAINED = "-"  # the setting of a method that was not trained
UNIT = ["fold", "case"]
SAMPLES = 10_000  # of the bootstrap
# Percents that differ by less are equal: rounding noise must not become a rank of the test.
_DECIMALS = 9


class Key(NamedTuple):
    """What rows of one group share."""

    method: str
    setting: str
    labelled: str
    shots: int
    protocol: str


def describe(values: Iterable[float]) -> dict[str, float]:
    """Mean, standard deviation and 95 % percentile-bootstrap interval of the mean of finite values.

    Of equal values "sd" is 0, "low" and "high" are that value.
    """
    ordered = np.sort(np.asarray(list(values), float))
    if ordered[0] == ordered[-1]:  # nothing to resample; the mean of equal values may be rounded
        value = float(ordered[0])
        return {"mean": value, "sd": 0.0, "low": value, "high": value}
    interval = stats.bootstrap(
        (ordered,),
        np.mean,
        n_resamples=SAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),  # SciPy below 1.15 does not know `rng`
    ).confidence_interval
    return {
        "mean": float(ordered.mean()),
        "sd": float(ordered.std(ddof=1)),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def paired_comparison(first: Mapping[Any, float], second: Mapping[Any, float]) -> dict[str, Any]:
    """First minus second, finite figures by case, on the cases that both have, at least one.

    The two-sided Wilcoxon signed-rank test discards cases without a difference (Wilcoxon's own
    rule); they stay in the mean and in "count". SciPy takes the exact distribution for up to 50
    cases without ties. With fewer than 6 cases p cannot fall below 0.05; without a difference it is
    1.
    """
    differences = np.round(
        [first[case] - second[case] for case in first if case in second], _DECIMALS
    )
    spread = describe(differences)
    moved = np.sort(differences[differences != 0])
    p_value = stats.wilcoxon(moved, zero_method="wilcox").pvalue if len(moved) else 1.0
    return {
        "count": len(differences),
        "mean_difference": spread["mean"],
        "low": spread["low"],
        "high": spread["high"],
        "p_value": float(p_value),
    }


def rows_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table, sorted by fold, case, label value and choice; indexed by place in `rows`."""
    table = pd.DataFrame(map(asdict, rows), columns=[entry.name for entry in fields(Row)])
    return table.sort_values([*UNIT, "value", "choice"], kind="stable")


def unit_means(table: pd.DataFrame, figures: Sequence[str] = ("dice",)) -> pd.DataFrame:
    """Figures by fold and case: mean over choices of support, then over defined structures.

    Args:
        table: rows as of `rows_frame`, of one group.
        figures: columns.
    """
    defined = table[table.status != UNDEFINED]
    per_structure = defined.groupby([*UNIT, "structure"], sort=False)[[*figures]].mean()
    return per_structure.groupby(UNIT).mean()


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers of the tables, as JSON values.

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
        DataError: a row occurs twice.
    """
    table = rows_frame(rows)
    for row in table[table.duplicated([*Key._fields, *UNIT, "choice", "structure"])].itertuples():
        raise DataError(
            f"results: {row.method} has case {row.case}, structure {row.structure} twice for one "
            "fold and support; leave one of the results folders out."
        )
    found = {Key(*key): part for key, part in table.groupby([*Key._fields], sort=False)}
    groups = {key: found[key] for key in sorted(found, key=_place)}
    dice = {
        key: part[part.status != UNDEFINED].set_index([*UNIT, "structure", "choice"]).dice
        for key, part in groups.items()
    }
    return {
        "groups": [_group(key, part) for key, part in groups.items()],
        "wv_gaps": _wv_gaps(dice),
        "comparisons": _comparisons(dice),
    }


def _place(key: Key) -> tuple[Any, ...]:
    """Place in the tables: the floor first, three slices before all, EP1 before the rest."""
    first = (key.method != FLOOR, key.method, key.setting, key.labelled == "all")
    return (*first, key.shots, PROTOCOLS.index(key.protocol))


def _group(key: Key, rows: pd.DataFrame) -> dict[str, Any]:
    by_value = rows.sort_values("value", kind="stable").groupby("structure", sort=False)
    folds = unit_means(rows).dice.groupby("fold").mean()
    group: dict[str, Any] = {
        **key._asdict(),
        "choices": sorted(rows.choice.unique().tolist()),
        "folds": sorted(rows.fold.unique().tolist()),
        "structures": {str(name): _described(part) for name, part in by_value},
        "mean": _described(rows),
        "fold_dice": {str(fold): mean for fold, mean in folds.items()},
    }
    means = [float(unit_means(part).dice.mean()) for _, part in rows.groupby("choice")]
    known = [mean for mean in means if np.isfinite(mean)]
    if len(means) > 1 and known:
        group["support_choice_range"] = {"lowest": min(known), "highest": max(known)}
    return group


def _described(rows: pd.DataFrame) -> dict[str, Any]:
    """Numbers of units, and mean, sd and interval of each figure over them."""
    table = unit_means(rows, FIGURES)
    nothing = dict.fromkeys(("mean", "sd", "low", "high"))
    return {
        "cases": len(rows[rows.status != UNDEFINED].drop_duplicates(UNIT)),
        "absent": len(rows[rows.status == ABSENT].drop_duplicates(UNIT)),
        "undefined": len(rows[rows.status == UNDEFINED].drop_duplicates(UNIT)),
        **{f: nothing if table.empty else describe(table[f]) for f in FIGURES},
    }


def _compared(first: pd.Series, second: pd.Series) -> dict[str, Any] | None:
    """First minus second, unit by unit, on what both have; None where that is nothing."""
    shared = pd.concat([first, second], axis=1, join="inner", keys=["first", "second"])
    if shared.empty:
        return None
    means = shared.groupby([*UNIT, "structure"], sort=False).mean().groupby(UNIT).mean()
    found = paired_comparison(means["first"].to_dict(), means["second"].to_dict())
    return {"figure": "dice", **found}


def _wv_gaps(dice: Mapping[Key, pd.Series]) -> list[dict[str, Any]]:
    gaps = []
    for key, blind in dice.items():
        if key.protocol != WHOLE_VOLUME:
            continue
        same = key._asdict()
        del same["protocol"]
        rules = [rule for rule in EP1_RULES if key._replace(protocol=rule) in dice]
        for told in rules or [ORACLE]:
            if gap := _compared(dice.get(key._replace(protocol=told), blind[:0]), blind):
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
        if comparison := _compared(dice[first], dice[second]):
            entry = {
                "protocol": first.protocol,
                "setting": min(settings, default=UNTRAINED),
                "labelled": first.labelled,
                "shots": first.shots,
                "first": first.method,
                "second": second.method,
            }
            found.append(entry | comparison)

    def place(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        protocol = PROTOCOLS.index(entry["protocol"])
        return entry["setting"], protocol, entry["labelled"] == "all", entry["shots"]

    return sorted(found, key=place)
