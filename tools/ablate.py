"""Ablations: what each part of a bundle's network is worth, by one short schedule.

    python tools/ablate.py --bundle bundles/cow --dataset_dir D --output_dir O
    python tools/ablate.py --report_only --output_dir O

The plan (variants, seeds, folds, schedule) is JSON, by default configs/ablation.json of the bundle.
Everything goes on where it was interrupted when the same command is given again. Two processes may
share O when each is given other --seeds or --variants. The plan and the tables are described in
fsmis_components/evaluation/README.md.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise, product
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import torch

from fsmis_components.commands.command_line import command, listed
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.fold_training import (
    NUM_FOLDS,
    finished_facts,
    fold_folder,
    read_plan,
    train_folds,
)
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import (
    UNDEFINED,
    WHOLE_VOLUME,
    Row,
    file_name,
    read_json,
    read_record,
)
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.summary import Comparison, paired_comparison
from fsmis_components.evaluation.tables import pipe_table
from fsmis_components.support.support_set import label_names, support_set_of_cases

EP1 = RULES["ep1-alp"].name
MEASURES = {
    "EP1 Dice, %": (EP1, "dice", 1),
    "WV Dice, %": (WHOLE_VOLUME, "dice", 1),
    "EP1 HD95, mm": (EP1, "hd95_mm", -1),
    "WV HD95, mm": (WHOLE_VOLUME, "hd95_mm", -1),
}
ABOUT = ("bundle", "dataset")
GRID = ("spatial_size", "slice_axis", "ignore_spacing")
NOTES = """\
Difference: with the part minus without it; for HD95 the sign is turned, so that positive always
means that the part helps. A case is the unit: structures are averaged within each seed, then seeds,
on what both variants have. Brackets: 95 % bootstrap interval over cases, which says how much cases
vary, not trainings. p: two-sided Wilcoxon signed-rank test, not corrected for the number of rows.
HD95 is the diagonal of the volume where only one of prediction and label is empty.
"""


@dataclass(frozen=True)
class AblationPlan:
    """What is compared with what; the keys are described in the README of the evaluation."""

    folds: Sequence[int]
    seeds: Sequence[int]
    reference: str
    stages: Sequence[Mapping[str, Any]]
    variants: Mapping[str, Mapping[str, Any]]
    structures: Any = None
    common: Mapping[str, Any] = field(default_factory=dict)
    ladder: Sequence[str] = field(default_factory=list)

    def knobs(self, variant: str) -> dict[str, Any]:
        """All knobs that a variant sets, but for the seed."""
        return {**self.common, **self.variants[variant]}


def read_ablation_plan(path: Path) -> AblationPlan:
    """Read and check a plan.

    Raises:
        DataError: no such file, or a part of the plan is missing or unusable.
    """
    try:
        content = read_json(path, "name a plan")
        # plan.json of an output folder also says what was run; "format": of an earlier version
        plan = AblationPlan(**{k: content[k] for k in content.keys() - {"format", *ABOUT}})
        names = [*plan.variants, plan.reference, *plan.ladder]
        knobs = [plan.common, *plan.stages, *plan.variants.values()]
        usable = set(names) == set(plan.variants) and all(isinstance(one, dict) for one in knobs)
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the plan of an ablation ({error}); see the docs.") from error
    if not usable:
        raise DataError(
            f"{path}: reference and ladder: expected some of {', '.join(plan.variants)}."
        )
    if any("seed" in one for one in knobs):
        raise DataError(f"{path}: the ablation sets the knob seed; list it under seeds instead.")
    if len({file_name(name).lower() for name in plan.variants}) < len(plan.variants):
        raise DataError(f"{path}: the folders of two variants would be one; rename a variant.")
    return plan


def ablate(
    output_dir: Path,
    bundle: Path | None = None,
    dataset_dir: Path | None = None,
    plan: Path | None = None,
    variants: Any = None,
    seeds: Any = None,
    folds: Any = None,
    minutes: float | None = None,
    threads: int | None = None,
    report_only: bool = False,
) -> list[str]:
    """Train and evaluate what is not finished, variant by variant; write the tables after each.

    Args:
        output_dir: trainings, results and tables.
        bundle: folder of the bundle.
        dataset_dir: folder of labelled scans.
        plan: JSON; default: configs/ablation.json of the bundle.
        variants: some of the plan's.
        seeds: some of the plan's.
        folds: some of the plan's.
        minutes: stop in time and go on at the next call.
        threads: threads of torch, in trainings as well.
        report_only: write the tables of what is finished.

    Returns:
        Why trainings or cases failed, a sentence each; what is left for want of time is no failure.

    Raises:
        DataError: the plan does not fit the bundle, the dataset or the folder; then nothing was
            trained.
    """
    if report_only:
        print(write_tables(output_dir))
        return []
    if not bundle or not dataset_dir:
        raise DataError("--bundle and --dataset_dir: an ablation needs both; name them.")
    if threads:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the trainings, which are commands
    given = read_ablation_plan(plan or bundle / "configs" / "ablation.json")
    names = _chosen(variants, list(given.variants), "variants")
    seeds, folds = _chosen(seeds, given.seeds, "seeds"), _chosen(folds, given.folds, "folds")
    knobs = {name: _inference_knobs(given, name, bundle) for name in {given.reference, *names}}
    labels = label_names(dataset_dir)
    if isinstance(given.structures, dict):
        labels |= {value: name for name, value in given.structures.items()}
    benchmark = {
        "cases": find_cases(dataset_dir, labels="required", section="training"),
        "rule": RULES["ep1-alp"],
        "num_folds": NUM_FOLDS,
        "labelled": ("sections",),
        "structures": given.structures,
        "names": labels,
    }
    for task in Plan(**benchmark, folds=folds).tasks():  # what is amiss is found in a second
        support_set_of_cases(task.support, structures=given.structures, source=f"fold {task.fold}")
    about = zip(ABOUT, (bundle.resolve().name, dataset_dir.resolve().name), strict=True)
    _note(output_dir / "plan.json", {**dict(about), **asdict(given)})
    end = inf if minutes is None else monotonic() + 60 * minutes
    failures: list[str] = []
    for seed, variant in product(seeds, names):
        title, left = _title(variant, seed), (end - monotonic()) / 60
        if left < 1:
            print(f"the time is over before {title}; give the same command to go on")
            break
        trained = output_dir / "trained" / f"{file_name(variant)}_seed{seed}"
        try:
            found = train_folds(
                bundle,
                dataset_dir,
                trained,
                folds,
                plan={"stages": given.stages},
                minutes=None if minutes is None else left,
                overrides={**given.knobs(variant), "seed": seed},
                cache_dir=output_dir / "pseudo_labels",
            )
            done = [f for f in folds if finished_facts(trained / fold_folder(f, None))]
            subject = BundleSubject(bundle, trained, knobs[variant])
            subject.name = title
            geometry = {key: subject.geometry[key] for key in GRID}
            if done:
                task = Plan(**benchmark, folds=done, geometry=geometry)
                found += run_benchmark([subject], task, output_dir / "evaluated")[1]
        except DataError as error:
            found = [str(error)]
        failures += [f"{title}: {sentence}" for sentence in found]
        write_tables(output_dir)
    print(write_tables(output_dir))
    return failures


def _inference_knobs(plan: AblationPlan, variant: str, bundle: Path) -> dict[str, Any]:
    """The knobs of a variant that inference.json has too.

    Raises:
        DataError: the bundle cannot be trained or used with the variant's knobs.
    """
    config = read_json(bundle / "configs" / "inference.json", "name the folder of a bundle")
    knobs = {knob: value for knob, value in plan.knobs(variant).items() if knob in config}
    try:
        read_plan(bundle, {"stages": plan.stages}, {**plan.knobs(variant), "seed": 0})
        BundleSubject(bundle, "untrained", knobs)
    except (DataError, RuntimeError) as error:  # RuntimeError: MONAI's, round a constructor's
        raise DataError(f"variant {variant}: {error.__cause__ or error}") from error
    return knobs


def write_tables(output_dir: Path) -> str:
    """Write `ablation.md` of all that is evaluated, whichever process did it; return its text.

    Raises:
        DataError: no ablation lies there, or a file of it is damaged.
    """
    path = output_dir / "plan.json"
    if not path.is_file():
        raise DataError(f"{output_dir}: no ablation there; name the --output_dir of one.")
    plan = read_ablation_plan(path)
    bundle = read_json(path, "name a plan").get("bundle")
    rows = _evaluated(plan, output_dir)
    parts = [f"# Ablation: what each part of {bundle} is worth", _overview(plan, rows)]
    compared = [(name, plan.reference, name) for name in plan.variants if name != plan.reference]
    compared += [(f"step: {step}", step, before) for before, step in pairwise(plan.ladder)]
    head = ["without", "with it", "without it", "difference [95 %]", "p", "cases"]
    head += [*(f"seed {n}" for n in plan.seeds), *(f"fold {n}" for n in plan.folds)]
    for measure in MEASURES:
        lines = [
            [label, *cells]
            for label, full, without in compared
            if (cells := _compared(plan, rows, measure, full, without))
        ]
        parts += [f"## What a part is worth: {measure}", pipe_table(head, lines)] if lines else []
    cases = rows.groupby(["variant", "seed", "fold"]).case.nunique().to_dict()
    most = {n: max((c for key, c in cases.items() if key[2] == n), default=0) for n in plan.folds}
    missing = [
        f"- {_title(variant, seed)}, fold {fold}: {found} of {most[fold] or 'all'} cases"
        for variant, seed, fold in product(plan.variants, plan.seeds, plan.folds)
        if (found := cases.get((variant, seed, fold), 0)) < (most[fold] or 1)
    ]
    parts += ["## Not finished yet", "\n".join(missing)] if missing else []
    text = "\n\n".join([*parts, NOTES])
    atomic_write_text(output_dir / "ablation.md", text)
    return text


def _evaluated(plan: AblationPlan, output_dir: Path) -> pd.DataFrame:
    """The rows of all that is evaluated, with their variant and seed."""
    found = []
    for variant, seed, fold in product(plan.variants, plan.seeds, plan.folds):
        folder = output_dir / "evaluated" / "cases" / file_name(_title(variant, seed))
        # [!.]: no file that another process is writing
        for path in sorted(folder.glob(f"fold{fold}_*/[!.]*.json")):
            if path.name != "unit.json":
                record = read_record(path)
                about = {"variant": variant, "seed": seed}
                found += [{**asdict(row), **about} for row in record.rows]
    names = [*(entry.name for entry in fields(Row)), "variant", "seed"]
    return pd.DataFrame(found, columns=names)


def _figures(rows: pd.DataFrame, measure: str, variant: str) -> pd.Series:
    """A measure of a variant by seed, fold, case and structure."""
    protocol, figure, _ = MEASURES[measure]
    found = rows[
        (rows.variant == variant) & (rows.protocol == protocol) & (rows.status != UNDEFINED)
    ]
    return found.set_index(["seed", "fold", "case", "structure"])[figure]


def _by_case(values: Any) -> Any:
    """Figures per case of a fold: mean over structures, then over seeds."""
    return values.groupby(["seed", "fold", "case"]).mean().groupby(["fold", "case"]).mean()


def _overview(plan: AblationPlan, rows: pd.DataFrame) -> str:
    lines = []
    for variant in plan.variants:
        part = rows[rows.variant == variant]
        means = [_by_case(_figures(rows, measure, variant)).mean() for measure in MEASURES]
        lines.append(
            [
                f"{variant} (reference)" if variant == plan.reference else variant,
                f"`{json.dumps(plan.variants[variant])}`",
                f"{len(part.groupby(['seed', 'fold']))} of {len(plan.seeds) * len(plan.folds)}",
                *("-" if np.isnan(mean) else f"{mean:.1f}" for mean in means),
            ]
        )
    return pipe_table(["variant", "knobs", "trainings", *MEASURES], lines, {0, 1})


def _compared(
    plan: AblationPlan, rows: pd.DataFrame, measure: str, full: str, without: str
) -> list[str]:
    """The cells of one comparison, on what both variants have; none where that is nothing."""
    sides = [_figures(rows, measure, variant) for variant in (full, without)]
    shared = pd.concat(sides, axis=1, join="inner", keys=["with", "without"])
    if shared.empty:
        return []

    def difference(part: pd.DataFrame) -> Comparison | None:
        means = [_by_case(part)[side].to_dict() for side in ("with", "without")]
        return paired_comparison(*means[:: MEASURES[measure][2]]) if means[0] else None

    found = difference(shared)
    level = shared.index.get_level_values
    parts = [difference(shared[level("seed") == number]) for number in plan.seeds]
    parts += [difference(shared[level("fold") == number]) for number in plan.folds]
    return [
        *(f"{mean:.1f}" for mean in _by_case(shared).mean()),
        f"{found.mean_difference:+z.1f} [{found.low:z.1f}, {found.high:z.1f}]",
        "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
        str(found.count),
        *("-" if part is None else f"{part.mean_difference:+z.1f}" for part in parts),
    ]


def _note(path: Path, content: dict[str, Any]) -> None:
    """Write the plan; refuse one that would mix its results with those of another."""
    there = read_json(path, "choose another --output_dir") if path.is_file() else content
    known, wanted = there.get("variants", {}), content["variants"]
    same = [(there.get(key), content[key]) for key in (*ABOUT, "stages", "structures", "common")]
    same += [(known[name], wanted[name]) for name in known.keys() & wanted.keys()]
    if any(old != new for old, new in same):
        raise DataError(f"{path}: holds another plan; choose another --output_dir.")
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def _title(variant: str, seed: int) -> str:
    return f"{variant}, seed {seed}"


def _chosen(wanted: Any, known: Sequence[Any], what: str) -> list[Any]:
    """Those of the plan that an option names, one or several; all without the option."""
    if wanted is None:
        return list(known)
    found = listed(wanted, type(known[0]), comma="\n" if what == "variants" else ",")
    unknown = [str(one) for one in found if one not in known]
    if unknown:
        raise DataError(
            f"{what}: the plan has no {unknown[0]}; it has {', '.join(map(str, known))}."
        )
    return [one for one in known if one in found]


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where something failed."""
    return command(ablate, arguments)


if __name__ == "__main__":
    sys.exit(main())
