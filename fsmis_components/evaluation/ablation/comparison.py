"""What each part is worth: the reference against each variant, case by case.

The case within its fold is the unit. Structures are averaged within a case and a seed, then seeds
within the case, so that two trainings of one case do not count as two cases. Two variants are
compared on the seeds, folds, cases and structures that both have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fsmis_components.evaluation.ablation.figures import EP1, PROTOCOLS, Figures, Key, Table
from fsmis_components.evaluation.ablation.folder import FinishedFold
from fsmis_components.evaluation.ablation.plan import AblationPlan
from fsmis_components.evaluation.records import WHOLE_VOLUME
from fsmis_components.evaluation.statistics import describe, paired_comparison

WORSE = "worse without it"
BETTER = "better without it"
NEITHER = "no difference shown (interval includes 0)"

Values = dict[Key, float]


@dataclass(frozen=True)
class Measure:
    """A figure that variants are compared by.

    Attributes:
        name: its key in `ablation.json`.
        protocol: under which it is taken.
        figure: "dice" or "hd95_mm".
        both_found: only structures for which neither of the two is penalised.
    """

    name: str
    protocol: str
    figure: str
    both_found: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.figure == "dice" else -1


MEASURES = (
    Measure("ep1_dice", EP1, "dice"),
    Measure("wv_dice", WHOLE_VOLUME, "dice"),
    Measure("ep1_hd95_mm", EP1, "hd95_mm"),
    Measure("wv_hd95_mm", WHOLE_VOLUME, "hd95_mm"),
    Measure("ep1_hd95_mm_both_found", EP1, "hd95_mm", both_found=True),
    Measure("wv_hd95_mm_both_found", WHOLE_VOLUME, "hd95_mm", both_found=True),
)


def compare(plan: AblationPlan, table: Table, finished: Sequence[FinishedFold]) -> dict[str, Any]:
    """All numbers of an ablation, as JSON values.

    Args:
        plan: what was to be compared.
        table: from `collect`.
        finished: the folds that the table is made of.

    Returns:
        "missing": per variant, seed and fold of the plan that is not finished its title.
        "variants": per variant knobs, parameters (None before its first fold), the seeds of each
        finished fold, and per measure mean, sd and 95 % interval over cases; per protocol how many
        structures were scored, penalised and undefined.
        "differences": per measure and variant the difference to the reference, positive where the
        part helps, with interval, p, its means per seed and per fold, whether all seeds have its
        sign, and the verdict. "steps": the same for each step of the plan's ladder ("reference")
        against the one before it ("variant").
    """
    done = {(fold.variant, fold.seed, fold.fold) for fold in finished}
    missing = [
        f"{piece.title}, fold {fold}"
        for piece in plan.pieces()
        for fold in plan.folds
        if (piece.variant, piece.seed, fold) not in done
    ]
    return {
        "reference": plan.reference,
        "missing": missing,
        "variants": {name: _variant(name, plan, table, finished) for name in plan.variants},
        "differences": [
            entry
            for measure in MEASURES
            for name in plan.variants
            if name != plan.reference
            and (entry := _difference(measure, name, plan.reference, table)) is not None
        ],
        "steps": [
            entry
            for measure in MEASURES
            for before, step in pairwise(plan.ladder)
            if (entry := _difference(measure, before, step, table)) is not None
        ],
    }


def _variant(
    name: str, plan: AblationPlan, table: Table, finished: Sequence[FinishedFold]
) -> dict[str, Any]:
    own = [fold for fold in finished if fold.variant == name]
    trainings: dict[str, list[int]] = defaultdict(list)
    for fold in own:
        trainings[str(fold.fold)].append(fold.seed)
    return {
        "knobs": plan.knobs(name),
        "parameters": own[0].parameters if own else None,
        "seeds_of_fold": dict(trainings),
        "figures": {
            measure.name: _spread(_values(table.get((name, measure.protocol), {}), measure.figure))
            for measure in MEASURES
            if not measure.both_found
        },
        "counts": {
            protocol: _counts(list(table.get((name, protocol), {}).values()))
            for protocol in PROTOCOLS
        },
    }


def _counts(figures: Sequence[Figures | None]) -> dict[str, int]:
    scored = [one for one in figures if one is not None]
    return {
        "scored": len(scored),
        "penalised": sum(one.penalised for one in scored),
        "undefined": len(figures) - len(scored),
    }


def _values(own: Mapping[Key, Figures | None], figure: str) -> Values:
    return {key: getattr(one, figure) for key, one in own.items() if one is not None}


def _spread(values: Values) -> dict[str, float | int] | None:
    units = _unit_means(values)
    return asdict(describe(units.values())) if units else None


def _difference(
    measure: Measure, variant: str, reference: str, table: Table
) -> dict[str, Any] | None:
    """The worth of what a variant lacks; None where the two share nothing."""
    sides = [table.get((name, measure.protocol), {}) for name in (reference, variant)]
    shared = set(sides[0]) & set(sides[1])
    if measure.both_found:
        shared = {key for key in shared if not any(_penalised(side[key]) for side in sides)}
    full, without = (
        _values({key: side[key] for key in sorted(shared)}, measure.figure) for side in sides
    )
    if not full:
        return None
    compared = _paired(measure, full, without)
    per_seed = _parts(measure, full, without, lambda key: key.seed)
    return {
        "measure": measure.name,
        "variant": variant,
        "reference": reference,
        **compared,
        "structures": len(full),
        "reference_mean": float(np.mean(list(_unit_means(full).values()))),
        "variant_mean": float(np.mean(list(_unit_means(without).values()))),
        "per_seed": per_seed,
        "per_fold": _parts(measure, full, without, lambda key: key.fold),
        "seeds_agree": min(per_seed.values()) > 0 or max(per_seed.values()) < 0,
        "verdict": verdict(compared["low"], compared["high"]),
    }


def verdict(low: float, high: float) -> str:
    """What an interval of the worth of a part says, in words."""
    if low > 0:
        return WORSE
    return BETTER if high < 0 else NEITHER


def _penalised(figures: Figures | None) -> bool:
    return figures is not None and figures.penalised


def _paired(measure: Measure, full: Values, without: Values) -> dict[str, Any]:
    sides = [_unit_means(full), _unit_means(without)]
    return asdict(paired_comparison(*sides[:: measure.sign]))


def _parts(
    measure: Measure, full: Values, without: Values, part: Callable[[Key], int]
) -> dict[str, float]:
    """Mean difference of each seed or fold by itself."""
    found = {}
    for number in sorted({part(key) for key in full}):
        own = [key for key in full if part(key) == number]
        compared = _paired(measure, {k: full[k] for k in own}, {k: without[k] for k in own})
        found[str(number)] = compared["mean_difference"]
    return found


def _unit_means(values: Values) -> dict[str, float]:
    """Figure per unit: mean over structures, then over seeds."""
    found: dict[tuple[int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, value in sorted(values.items()):
        found[key.fold, key.case][key.seed].append(value)
    return {
        f"fold {fold}, case {case}": float(np.mean([np.mean(own) for own in seeds.values()]))
        for (fold, case), seeds in found.items()
    }
