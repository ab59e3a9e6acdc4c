"""The page `ablation.md`: what `compare` found, as tables that can be cited."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fsmis_components.evaluation.ablation.comparison import MEASURES, NEITHER
from fsmis_components.evaluation.ablation.figures import EP1, PROTOCOLS
from fsmis_components.evaluation.ablation.plan import AblationPlan
from fsmis_components.evaluation.pipe_table import pipe_table
from fsmis_components.evaluation.records import WHOLE_VOLUME

_NONE = "–"
_TITLES = {
    "ep1_dice": "Dice, EP1 (`ep1-alp`), in points of percent",
    "wv_dice": "Dice, whole volume, in points of percent",
    "ep1_hd95_mm": "HD95, EP1 (`ep1-alp`), in mm",
    "wv_hd95_mm": "HD95, whole volume, in mm",
    "ep1_hd95_mm_both_found": "HD95, EP1 (`ep1-alp`), in mm, without penalised structures",
    "wv_hd95_mm_both_found": "HD95, whole volume, in mm, without penalised structures",
}
# key of the numbers, title of the tables, and which side names a row, with the titles of both
_COMPARISONS = (
    ("differences", "What a part is worth", lambda plan: ("variant", plan.reference, "variant")),
    ("steps", "What a step adds", lambda plan: ("reference", "with it", "the step before")),
)
_ROWS = {"variant": "variant", "reference": "step"}
_NOTES = (
    "Difference: reference minus variant, or a step of the ladder minus the step before it, that "
    "is what the part is worth; for HD95 the sign is turned. Positive always means that the part "
    "helps.",
    "A case is the unit: its structures are averaged within each seed, then its seeds, and the two "
    "variants are compared on the seeds, folds, cases and structures that both have. Brackets: "
    "95 % percentile-bootstrap interval of the mean difference over cases. p: two-sided Wilcoxon "
    "signed-rank test over cases, not corrected for the number of rows; with fewer than 6 cases it "
    "cannot fall below 0.05.",
    "In words: the interval lies above 0, below 0, or includes it. It says how much cases vary, "
    "not how much trainings do; where an interval leaves out 0 and the seeds differ in sign, the "
    "words say that too. A bootstrap of few cases (below about 20) gives intervals that are too "
    "narrow.",
    "Trained by one short schedule and tested with three labelled slices per structure of one "
    "support scan: not the figures of a full training.",
    "HD95 is always finite. Where only one of prediction and label is empty, no distance exists; "
    "the diagonal of the volume, the largest possible error, is put in its place (penalised). "
    "Where both are empty it is 0. Where something is penalised, a second table leaves out the "
    "structures that are penalised in the reference or in the variant.",
    "EP1 cannot score a structure that the query does not hold: undefined, in no mean.",
)


def ablation_page(plan: AblationPlan, numbers: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        plan: what was to be compared.
        numbers: from `compare`.
        about: facts that are printed at the end as they stand.
    """
    parts = [
        f"# Ablation: what each part of {about.get('bundle', 'the network')} is worth",
        f"Reference: {plan.reference}. Seeds {_joined(plan.seeds)}, folds {_joined(plan.folds)}. "
        "Research figures; not a medical device.",
    ]
    if numbers["missing"]:
        listed = "\n".join(f"- {title}" for title in numbers["missing"])
        parts += ["## Not finished yet", "These are in no table.", listed]
    parts += ["## Variants, mean over cases", _overview(plan, numbers)]
    for key, title, heads in _COMPARISONS:
        for measure in MEASURES:
            rows = [one for one in numbers[key] if one["measure"] == measure.name]
            if rows and not (measure.both_found and _nothing_penalised(numbers, measure.protocol)):
                table = _differences(plan, rows, *heads(plan))
                parts += [f"## {title}: {_TITLES[measure.name]}", table]
    schedule = "\n".join(f"- `{json.dumps(stage)}`" for stage in plan.stages)
    parts += ["## Notes", "\n".join(f"- {note}" for note in _NOTES)]
    parts += ["## Schedule of all variants", schedule]
    facts = [f"- {key}: {_fact(value)}" for key, value in about.items() if value]
    return "\n\n".join([*parts, "## Provenance", "\n".join(facts)]) + "\n"


def _nothing_penalised(numbers: Mapping[str, Any], protocol: str) -> bool:
    counts = (variant["counts"][protocol] for variant in numbers["variants"].values())
    return not any(count["penalised"] for count in counts)


def _overview(plan: AblationPlan, numbers: Mapping[str, Any]) -> str:
    heads = ["variant", "knobs"]
    titles = [
        *("parameters", "trainings", "EP1 Dice, %", "WV Dice, %", "EP1 HD95, mm", "WV HD95, mm"),
        *("penalised EP1", "penalised WV", "undefined EP1"),
    ]
    wanted = len(plan.seeds) * len(plan.folds)
    rows = []
    for name, variant in numbers["variants"].items():
        own = plan.variants[name]
        done = sum(len(seeds) for seeds in variant["seeds_of_fold"].values())
        counts = variant["counts"]
        penalised = [
            f"{counts[protocol]['penalised']} of {counts[protocol]['scored']}" if done else _NONE
            for protocol in PROTOCOLS
            if protocol in (EP1, WHOLE_VOLUME)
        ]
        rows.append(
            [
                f"{name} (reference)" if name == plan.reference else name,
                f"`{json.dumps(own)}`" if own else _NONE,
                f"{variant['parameters']:,}" if done else _NONE,
                f"{done} of {wanted}",
                *(_mean(variant["figures"][m.name]) for m in MEASURES if not m.both_found),
                *penalised,
                str(counts[EP1]["undefined"]) if done else _NONE,
            ]
        )
    return _table(heads, titles, rows)


def _differences(
    plan: AblationPlan, entries: Sequence[Mapping[str, Any]], label: str, full: str, without: str
) -> str:
    titles = [
        *(full, without, "difference [95 %]", "p", "cases"),
        *(f"seed {seed}" for seed in plan.seeds),
        *(f"fold {fold}" for fold in plan.folds),
    ]
    rows = []
    for entry in entries:
        parts = [entry["per_seed"].get(str(seed)) for seed in plan.seeds]
        parts += [entry["per_fold"].get(str(fold)) for fold in plan.folds]
        p_value = entry["p_value"]
        rows.append(
            [
                entry[label],
                f"{entry['reference_mean']:.1f}",
                f"{entry['variant_mean']:.1f}",
                f"{entry['mean_difference']:+z.1f} [{entry['low']:z.1f}, {entry['high']:z.1f}]",
                "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
                str(entry["count"]),
                *(_NONE if part is None else f"{part:+z.1f}" for part in parts),
                _words(entry),
            ]
        )
    return _table([_ROWS[label]], titles, rows, ["in words"])


def _words(entry: Mapping[str, Any]) -> str:
    doubt = entry["verdict"] != NEITHER and not entry["seeds_agree"]
    return entry["verdict"] + (", but seeds differ in sign" if doubt else "")


def _mean(spread: Mapping[str, float] | None) -> str:
    return _NONE if spread is None else f"{spread['mean']:.1f}"


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _fact(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return "; ".join(f"`{one}`" for one in values)


def _table(
    heads: Sequence[str],
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    tails: Sequence[str] = (),
) -> str:
    """A table whose first and last columns are text and whose others are numbers."""
    width = len(heads) + len(titles) + len(tails)
    text = {*range(len(heads)), *range(width - len(tails), width)}
    return pipe_table([*heads, *titles, *tails], rows, text)
