"""The benchmark of few-shot segmentation: train folds, evaluate methods, join results.

    python tools/benchmark.py train --bundle bundles/ssl_alpnet --dataset_dir D --output_dir T
    python tools/benchmark.py evaluate --subjects mask_copy bundles/ssl_alpnet:T --dataset_dir D \
        --output_dir R
    python tools/benchmark.py report R1 R2 --output_dir ALL

Everything goes on where it was interrupted when the same command is given again. The protocols and
the figures are described in fsmis_components/evaluation/README.md.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from fsmis_components.commands.command_line import chosen, command, listed, pairs, say, yaml_value
from fsmis_components.data.atomic import check_writable
from fsmis_components.data.cases import search_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.fold_training import train_folds
from fsmis_components.evaluation.protocols import RULES
from fsmis_components.evaluation.report import note_run, write_results
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.registry import make_subject
from fsmis_components.support.support_set import label_names


def train(
    bundle: Path,
    dataset_dir: Path,
    output_dir: Path,
    folds: Any = None,
    setting: int = 1,
    exclude_rule: str = "any",
    groups: Any = None,
    plan: Path | None = None,
    knobs: str | None = None,
) -> list[str]:
    """Train the folds of a bundle.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of scans.
        output_dir: receives the trained folds.
        folds: numbers from 0; default: all.
        setting: 1 or 2.
        exclude_rule: of setting 2: any or all.
        groups: setting 2: label values left out together, one model per group: 2,3 1,4
        plan: JSON of the stages; default: the bundle's own.
        knobs: KNOB=VALUE, knobs of train.json.
    """
    parts = listed(groups or [], comma="\n")
    return train_folds(
        bundle,
        dataset_dir,
        output_dir,
        folds=None if folds is None else listed(folds, int),
        setting=setting,
        exclude_rule=exclude_rule,
        structure_groups=[listed(part, int) for part in parts] or None,
        plan=plan,
        overrides=pairs(knobs, "knobs"),
    )


def evaluate(
    subjects: Any,
    dataset_dir: Path,
    output_dir: Path,
    folds: Any = None,
    rule: str = "ep1-alp",
    num_folds: int = 5,
    shots: Any = 1,
    choices: Any = None,
    labelled: Any = ("sections", "all"),
    structures: str | None = None,
    spatial_size: int = 256,
    modality: str = "auto",
    slice_axis: str = "auto",
    ignore_spacing: bool = False,
    options: str | None = None,
    threads: int | None = None,
) -> list[str]:
    """Evaluate methods, then write the tables and the report.

    Args:
        subjects: methods, as mask_copy, ants_syn or bundles/cow; the benchmark's page has all.
        dataset_dir: folder of labelled scans.
        output_dir: the results folder.
        folds: numbers from 0; default: all.
        rule: ep1-alp or ep1-qnet.
        num_folds: into how many folds the scans are split.
        shots: numbers of support scans.
        choices: choices of support, from 0.
        labelled: sections, all, or both.
        structures: values, names, or {name: value}.
        spatial_size: pixels along a slice.
        modality: auto, mr or ct.
        slice_axis: auto, or a name such as sagittal.
        ignore_spacing: take the spacing for unknown.
        options: {subject: {option: value}}, of BUNDLE:fit {"BUNDLE:fit": {half_steps: 500}}.
        threads: threads of torch.
    """
    if threads:
        torch.set_num_threads(threads)
    geometry = {
        "spatial_size": spatial_size,
        "modality": chosen("modality", modality, ("auto", "mr", "ct")),
        "slice_axis": slice_axis,
        "ignore_spacing": ignore_spacing,
    }
    specs = listed(subjects)
    given = yaml_value(options, "--options") or {}
    # by the whole name, so that a bundle and its fit have each their own
    named = {spec: spec if spec in given else spec.partition(":")[0] for spec in specs}
    unknown = sorted(set(given) - set(named.values()))
    if unknown:
        raise DataError(f"--options: no subject is called {', '.join(unknown)}; name one of yours.")
    kinds = tuple(chosen("labelled", kind, ("sections", "all")) for kind in listed(labelled))
    ep1 = RULES[chosen("rule", rule, tuple(RULES))]
    check_writable(output_dir)
    made = [make_subject(spec, geometry, given.get(named[spec])) for spec in specs]
    wanted = yaml_value(structures, "--structures")
    called = {v: k for k, v in wanted.items()} if isinstance(wanted, dict) else {}
    found = search_cases(dataset_dir, labels="required", section="training")
    found.tell()
    plan = Plan(
        cases=found.cases,
        rule=ep1,
        folds=range(num_folds) if folds is None else listed(folds, int),
        num_folds=num_folds,
        shots=listed(shots, int),
        choices=None if choices is None else listed(choices, int),
        labelled=kinds,
        structures=wanted,
        names={**label_names(dataset_dir), **called},
        geometry={key: value for key, value in geometry.items() if key != "modality"},
    )
    records, failures = run_benchmark(made, plan, output_dir)
    if records:
        note_run(output_dir, _command(), failures)
        _show(write_results([output_dir], output_dir))
    return failures


def report(*results: str, output_dir: Path) -> None:
    """Join results folders into one set of tables and a report.

    Args:
        results: the folders.
        output_dir: receives tables and report.
    """
    _show(write_results([Path(str(folder)) for folder in results], output_dir))


def _command() -> str:
    """Return this command without the folders of this machine."""
    given = sys.argv[2:] if sys.argv[1:2] == ["benchmark"] else sys.argv[1:]  # of `fsmis benchmark`
    words = ["python", "tools/benchmark.py", *given]
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--output_dir":
            continue
        if word != "--output_dir":
            kept.append(Path(word).name if before == "--dataset_dir" else word)
    return " ".join(json.dumps(word) if " " in word else word for word in kept)


def _show(paths: list[Path]) -> None:
    say("\n".join([paths[0].read_text(encoding="utf-8"), *map(str, paths)]))


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return 0, or 1 where something failed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return command({"train": train, "evaluate": evaluate, "report": report}, arguments)
