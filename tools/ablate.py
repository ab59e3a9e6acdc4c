"""Ablations: what each part of a bundle's network is worth, by one short schedule.

    python tools/ablate.py --bundle bundles/cow --dataset_dir D --output_dir O

Trains each variant of the plan with each seed over the same folds (`benchmark.py train`), evaluates
it, and compares it with the reference, case by case. The plan is JSON, by default
configs/ablation.json of the bundle; fsmis_components/evaluation/README.md describes it. The same
command goes on where it was interrupted.
"""

import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fsmis_components.commands.command_line import command
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.cases import find_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.fold_training import (
    NUM_FOLDS,
    finished_facts,
    fold_folder,
    train_folds,
)
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.records import WHOLE_VOLUME, file_name, read_json, read_records
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.bundle import BundleSubject
from fsmis_components.evaluation.summary import paired_comparison, rows_frame, unit_means
from fsmis_components.evaluation.tables import pipe_table
from fsmis_components.support.support_set import label_names

RULE = RULES["ep1-alp"]
NEEDED = {"folds", "seeds", "reference", "stages", "variants"}
OPTIONAL = {"structures": None, "common": {}}
GRID = ("spatial_size", "slice_axis", "ignore_spacing")
NOTE = """\
Difference: the reference minus the variant, case by case (structures averaged, then seeds), so that
positive means that the part helps; its 95 % bootstrap interval over cases says how much cases vary,
not trainings. p: two-sided Wilcoxon signed-rank test, not corrected for the number of rows.
"""


def read_ablation_plan(path: Path) -> dict[str, Any]:
    """Read a plan and fill in what may be left out.

    Raises:
        DataError: no such file, or a part of the plan is missing or unusable.
    """
    plan = read_json(path, "name a plan")
    if not isinstance(plan, dict) or not NEEDED <= plan.keys() <= NEEDED | OPTIONAL.keys():
        raise DataError(f"{path}: expected {', '.join(sorted(NEEDED | OPTIONAL.keys()))}.")
    plan = {**OPTIONAL, **plan}
    if plan["reference"] not in plan["variants"]:
        raise DataError(f"{path}: reference: expected one of {', '.join(plan['variants'])}.")
    if any("seed" in knobs for knobs in (plan["common"], *plan["variants"].values())):
        raise DataError(f"{path}: the ablation sets the knob seed; list it under seeds instead.")
    return plan


def ablate(
    output_dir: Path,
    bundle: Path,
    dataset_dir: Path,
    plan: Path | None = None,
    threads: int | None = None,
) -> list[str]:
    """Train and evaluate what is not finished, then compare.

    Args:
        output_dir: trainings, results and `ablation.md`.
        bundle: folder of the bundle.
        dataset_dir: folder of labelled scans.
        plan: JSON; default: configs/ablation.json of the bundle.
        threads: threads of torch, in trainings as well.

    Returns:
        Why trainings or cases failed, a sentence each.
    """
    if threads:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of the trainings, which are commands
    given = read_ablation_plan(plan or bundle / "configs" / "ablation.json")
    known = read_json(bundle / "configs" / "inference.json", "name the folder of a bundle")
    structures = given["structures"]
    named = {v: k for k, v in structures.items()} if isinstance(structures, dict) else {}
    benchmark: dict[str, Any] = {
        "cases": find_cases(dataset_dir, labels="required", section="training"),
        "rule": RULE,
        "num_folds": NUM_FOLDS,
        "labelled": ("sections",),
        "structures": structures,
        "names": {**label_names(dataset_dir), **named},
    }
    failures: list[str] = []
    for seed, (variant, changes) in product(given["seeds"], given["variants"].items()):
        title = f"{variant}, seed {seed}"
        knobs = {**given["common"], **changes}
        trained = output_dir / "trained" / f"{file_name(variant)}_seed{seed}"
        try:
            found = train_folds(
                bundle,
                dataset_dir,
                trained,
                given["folds"],
                plan={"stages": given["stages"]},
                overrides={**knobs, "seed": seed},
                cache_dir=output_dir / "pseudo_labels",
            )
            done = [f for f in given["folds"] if finished_facts(trained / fold_folder(f, None))]
            subject = BundleSubject(bundle, trained, {k: v for k, v in knobs.items() if k in known})
            subject.name = title
            geometry = {key: subject.geometry[key] for key in GRID}
            if done:
                task = Plan(**benchmark, folds=done, geometry=geometry)
                found += run_benchmark([subject], task, output_dir / "evaluated")[1]
        except DataError as error:
            found = [str(error)]
        failures += [f"{title}: {sentence}" for sentence in found]
    if (output_dir / "evaluated").is_dir():
        print(write_table(output_dir, given["reference"]))
    return failures


def write_table(output_dir: Path, reference: str) -> str:
    """Write `ablation.md` of all that is evaluated and return its text."""
    rows = rows_frame(
        [row for record in read_records(output_dir / "evaluated") for row in record.rows]
    )
    rows["variant"] = rows.method.str.rpartition(", seed ")[0]
    lines = []
    for protocol, title in ((RULE.name, "EP1"), (WHOLE_VOLUME, "whole volume")):
        part = rows[rows.protocol == protocol]
        dice = {
            str(name): pd.concat([unit_means(one) for _, one in own.groupby("method")])
            .groupby(level=[0, 1])
            .dice.mean()
            for name, own in part.groupby("variant", sort=False)
        }
        full = dice.get(reference, pd.Series(dtype=float))
        for name, own in dice.items():
            cells = [title, name, f"{own.mean():.1f}"]
            shared = full.index.intersection(own.index)
            if name == reference or shared.empty:
                lines.append([*cells, "", "", str(len(own))])
                continue
            found = paired_comparison(full[shared].to_dict(), own[shared].to_dict())
            change = f"{found.mean_difference:+z.1f} [{found.low:z.1f}, {found.high:z.1f}]"
            lines.append([*cells, change, f"{found.p_value:.3f}", str(found.count)])
    head = ["protocol", "variant", "Dice, %", f"{reference} minus it [95 %]", "p", "cases"]
    text = "\n\n".join(["# Ablation", pipe_table(head, lines, {0, 1}), NOTE])
    atomic_write_text(output_dir / "ablation.md", text)
    return text


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where something failed."""
    return command(ablate, arguments)


if __name__ == "__main__":
    sys.exit(main())
