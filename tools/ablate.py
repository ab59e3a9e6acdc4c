"""Ablations: what each part of a bundle's network is worth, by one short schedule.

    python tools/ablate.py --bundle bundles/cow --dataset_dir D --output_dir O
    python tools/ablate.py --report_only --output_dir O

The plan (variants, seeds, folds, schedule) is JSON, by default configs/ablation.json of the bundle.
Everything goes on where it was interrupted when the same command is given again. Two processes may
share O when each is given other --seeds or --variants. The plan and the tables are described in
fsmis_components/evaluation/README.md.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, product
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

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
from fsmis_components.evaluation.pipe_table import pipe_table
from fsmis_components.evaluation.records import UNDEFINED, WHOLE_VOLUME, CaseRecord
from fsmis_components.evaluation.results_folder import file_name, read_json, read_record
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.statistics import paired_comparison
from fsmis_components.evaluation.subjects.bundle import BundleSubject
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
Penalised: only one of prediction and label is empty, so HD95 is the diagonal of the volume.
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


Piece = tuple[str, int, int]  # variant, seed, fold
Key = tuple[int, int, str, str]  # seed, fold, case, structure
Figures = dict[tuple[str, str], dict[Key, float]]  # by measure and variant


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


def run_ablation(
    plan: AblationPlan,
    bundle: Path,
    dataset_dir: Path,
    output_dir: Path,
    *,
    variants: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    minutes: float | None = None,
) -> list[str]:
    """Train and evaluate what is not finished, variant by variant; write the tables after each.

    Returns:
        Why trainings or cases failed, a sentence each; what is left for want of time is no failure.

    Raises:
        DataError: the plan does not fit the bundle, the dataset or the folder; then nothing was
            trained.
    """
    variants = _chosen(variants, list(plan.variants), "variants")
    seeds, folds = _chosen(seeds, plan.seeds, "seeds"), _chosen(folds, plan.folds, "folds")
    config = read_json(bundle / "configs" / "inference.json", "name the folder of a bundle")
    knobs = {}
    for variant in {plan.reference, *variants}:
        own = plan.knobs(variant)
        knobs[variant] = {knob: value for knob, value in own.items() if knob in config}
        try:
            read_plan(bundle, {"stages": plan.stages}, {**own, "seed": 0})
            BundleSubject(bundle, "untrained", knobs[variant])
        except (DataError, RuntimeError) as error:  # RuntimeError: MONAI's, round a constructor's
            raise DataError(f"variant {variant}: {error.__cause__ or error}") from error
    names = label_names(dataset_dir)
    if isinstance(plan.structures, dict):
        names |= {value: name for name, value in plan.structures.items()}
    benchmark = {
        "cases": find_cases(dataset_dir, labels="required", section="training"),
        "rule": RULES["ep1-alp"],
        "num_folds": NUM_FOLDS,
        "labelled": ("sections",),
        "structures": plan.structures,
        "names": names,
    }
    for task in Plan(**benchmark, folds=folds).tasks():  # what is amiss is found in a second
        support_set_of_cases(
            task.support, structures=plan.structures, names=names, source=f"fold {task.fold}"
        )
    about = zip(ABOUT, (bundle.resolve().name, dataset_dir.resolve().name), strict=True)
    _note(output_dir / "plan.json", {**dict(about), **asdict(plan)})
    end = inf if minutes is None else monotonic() + 60 * minutes
    failures: list[str] = []
    for seed, variant in product(seeds, variants):
        title, left = _title(variant, seed), (end - monotonic()) / 60
        if left < 1:
            print(f"the time is over before {title}; give the same command to go on")
            break
        trained = output_dir / "trained" / f"{file_name(variant)}_seed{seed}"
        options = {"plan": {"stages": plan.stages}, "cache_dir": output_dir / "pseudo_labels"}
        options |= {"overrides": {**plan.knobs(variant), "seed": seed}}
        options |= {"minutes": None if minutes is None else left}
        try:
            found = train_folds(bundle, dataset_dir, trained, folds, **options)
            done = [fold for fold in folds if finished_facts(trained / fold_folder(fold, None))]
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
    return failures


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
    records: dict[Piece, list[CaseRecord]] = {}
    for piece in product(plan.variants, plan.seeds, plan.folds):
        folder = output_dir / "evaluated" / "cases" / file_name(_title(*piece[:2]))
        # [!.]: no file that another process is writing
        paths = sorted(folder.glob(f"fold{piece[2]}_*/[!.]*.json"))
        records[piece] = [read_record(path) for path in paths if path.name != "unit.json"]
    figures = _figures(records)
    parts = [f"# Ablation: what each part of {bundle} is worth", _overview(plan, records, figures)]
    compared = [(name, plan.reference, name) for name in plan.variants if name != plan.reference]
    compared += [(f"step: {step}", step, before) for before, step in pairwise(plan.ladder)]
    head = ["without", "with it", "without it", "difference [95 %]", "p", "cases"]
    head += [*(f"seed {n}" for n in plan.seeds), *(f"fold {n}" for n in plan.folds)]
    for measure, (_, _, sign) in MEASURES.items():
        rows = [
            [label, *_compared(plan, sign, figures[measure, full], figures[measure, without])]
            for label, full, without in compared
            if figures[measure, full].keys() & figures[measure, without].keys()
        ]
        parts += [f"## What a part is worth: {measure}", pipe_table(head, rows)] if rows else []
    most = {fold: max(len(v) for k, v in records.items() if k[2] == fold) for fold in plan.folds}
    missing = [
        f"- {_title(variant, seed)}, fold {fold}: {len(found)} of {most[fold] or 'all'} cases"
        for (variant, seed, fold), found in records.items()
        if len(found) < (most[fold] or 1)
    ]
    parts += ["## Not finished yet", "\n".join(missing)] if missing else []
    text = "\n\n".join([*parts, NOTES])
    atomic_write_text(output_dir / "ablation.md", text)
    return text


def _figures(records: Mapping[Piece, Sequence[CaseRecord]]) -> Figures:
    figures: Figures = defaultdict(dict)
    for (variant, seed, fold), found in records.items():
        for row in (row for record in found for row in record.rows if row.status != UNDEFINED):
            for measure, (protocol, figure, _) in MEASURES.items():
                if row.protocol == protocol:
                    key = (seed, fold, row.case, row.structure)
                    figures[measure, variant][key] = getattr(row, figure)
    return figures


def _overview(
    plan: AblationPlan, records: Mapping[Piece, Sequence[CaseRecord]], figures: Figures
) -> str:
    rows = []
    for variant in plan.variants:
        own = [found for (name, _, _), found in records.items() if name == variant]
        counts = [
            counts
            for record in sum(own, [])
            for row, counts in zip(record.rows, record.counts, strict=True)
            if row.protocol == WHOLE_VOLUME
        ]
        means = [list(_by_case(figures[measure, variant]).values()) for measure in MEASURES]
        rows.append(
            [
                f"{variant} (reference)" if variant == plan.reference else variant,
                f"`{json.dumps(plan.variants[variant])}`",
                f"{sum(map(bool, own))} of {len(own)}",
                *(f"{np.mean(mean):.1f}" if mean else "-" for mean in means),
                sum(any(one.predicted) != any(one.labelled) for one in counts),
            ]
        )
    return pipe_table(["variant", "knobs", "trainings", *MEASURES, "penalised WV"], rows, {0, 1})


def _compared(
    plan: AblationPlan, sign: int, full: Mapping[Key, float], without: Mapping[Key, float]
) -> list[str]:
    """The cells of one comparison, on what both variants have."""
    shared = sorted(full.keys() & without.keys())

    def sides(part: Callable[[Key], bool]) -> list[dict[str, float]]:
        return [_by_case({k: side[k] for k in shared if part(k)}) for side in (full, without)]

    both = sides(lambda _: True)
    found = paired_comparison(*both[::sign])
    parts = [sides(lambda key, n=n: key[0] == n) for n in plan.seeds]
    parts += [sides(lambda key, n=n: key[1] == n) for n in plan.folds]
    return [
        *(f"{np.mean(list(side.values())):.1f}" for side in both),
        f"{found.mean_difference:+z.1f} [{found.low:z.1f}, {found.high:z.1f}]",
        "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
        str(found.count),
        *(f"{paired_comparison(*p[::sign]).mean_difference:+z.1f}" if p[0] else "-" for p in parts),
    ]


def _by_case(values: Mapping[Key, float]) -> dict[str, float]:
    """Figure per case of a fold: mean over structures, then over seeds."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (seed, fold, case, _), value in values.items():
        found[f"fold {fold}, {case}"][seed].append(value)
    return {
        case: float(np.mean([np.mean(own) for own in seeds.values()]))
        for case, seeds in found.items()
    }


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


def _chosen(wanted: Sequence[Any] | None, known: Sequence[Any], what: str) -> list[Any]:
    unknown = [str(one) for one in wanted or [] if one not in known]
    if unknown:
        raise DataError(
            f"{what}: the plan has no {unknown[0]}; it has {', '.join(map(str, known))}."
        )
    return [one for one in known if wanted is None or one in wanted]


def main(arguments: list[str] | None = None) -> int:
    """Run an ablation, or only write its tables; return 0, or 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bundle", type=Path, help="folder of the bundle")
    add("--dataset_dir", type=Path, help="folder of labelled scans")
    add("--output_dir", type=Path, required=True, help="trainings, results and tables")
    add("--plan", type=Path, help="JSON; default: configs/ablation.json of the bundle")
    add("--variants", nargs="+", metavar="NAME", help="some of the plan's")
    add("--seeds", nargs="+", type=int, help="some of the plan's")
    add("--folds", nargs="+", type=int, help="some of the plan's")
    add("--minutes", type=float, help="stop in time and go on at the next call")
    add("--threads", type=int, help="threads of torch, in trainings as well")
    add("--report_only", action="store_true", help="write the tables of what is finished")
    options = vars(parser.parse_args(arguments))
    output, plan, threads = (options.pop(name) for name in ("output_dir", "plan", "threads"))
    if threads:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the trainings, which are commands
    failures: list[str] = []
    try:
        if not options.pop("report_only"):
            if not options["bundle"] or not options["dataset_dir"]:
                raise DataError("--bundle and --dataset_dir: an ablation needs both; name them.")
            plan = read_ablation_plan(plan or options["bundle"] / "configs" / "ablation.json")
            failures = run_ablation(plan, output_dir=output, **options)
        print(write_tables(output))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; give the same command to go on", file=sys.stderr)
        return 130
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
