"""The benchmark of few-shot segmentation: train folds, evaluate methods, join results.

    python tools/benchmark.py train --bundle bundles/ssl_alpnet --dataset_dir D --output_dir T
    python tools/benchmark.py evaluate --subjects mask_copy bundles/ssl_alpnet:T --dataset_dir D \
        --output_dir R
    python tools/benchmark.py report R1 R2 --output_dir ALL

Everything goes on where it was interrupted when the same command is given again. The protocols and
the figures are described in fsmis_components/evaluation/README.md.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
import yaml

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.cases import search_cases
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.fold_training import train_folds
from fsmis_components.evaluation.results import note_run, write_results
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.runner import Plan, run_benchmark
from fsmis_components.evaluation.subjects.registry import make_subject
from fsmis_components.support.support_set import label_names

logger = logging.getLogger("benchmark")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return 0, or 1 where something failed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = _parser().parse_args(arguments)
    if getattr(options, "threads", None):
        torch.set_num_threads(options.threads)
    try:
        return options.command(options)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; give the same command to go on", file=sys.stderr)
        return 130


def train(options: argparse.Namespace) -> int:
    """Train the folds of a bundle."""
    groups = [_numbers(group) for group in options.groups] if options.groups else None
    failures = train_folds(
        options.bundle,
        options.dataset_dir,
        options.output_dir,
        folds=options.folds,
        setting=options.setting,
        exclude_rule=options.exclude_rule,
        structure_groups=groups,
        plan=options.plan,
        minutes=options.minutes,
        overrides=dict(_pair(text) for text in options.knobs),
    )
    return _finish(failures)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate subjects, then write the tables and the report."""
    geometry = {
        "spatial_size": options.spatial_size,
        "modality": options.modality,
        "slice_axis": options.slice_axis,
        "ignore_spacing": options.ignore_spacing,
    }
    own = _yaml(options.options, "--options") if options.options else {}
    unknown = sorted(set(own) - {_head(spec) for spec in options.subjects})
    if unknown:
        raise DataError(f"--options: no subject is called {', '.join(unknown)}; name one of yours.")
    output = Path(options.output_dir)
    check_writable(output)
    cache = output / "unet_weights"
    subjects = [make_subject(s, geometry, own.get(_head(s)), cache) for s in options.subjects]
    structures = _yaml(options.structures, "--structures") if options.structures else None
    named = {v: k for k, v in structures.items()} if isinstance(structures, dict) else {}
    found = search_cases(options.dataset_dir, labels="required", section="training")
    found.tell()
    plan = Plan(
        cases=found.cases,
        rule=RULES[options.rule],
        folds=range(options.num_folds) if options.folds is None else options.folds,
        num_folds=options.num_folds,
        shots=options.shots,
        choices=options.choices,
        labelled=options.labelled,
        structures=structures,
        names={**label_names(options.dataset_dir), **named},
        geometry={key: value for key, value in geometry.items() if key != "modality"},
    )
    records, failures = run_benchmark(subjects, plan, output)
    if not records:
        return _finish(failures)
    note_run(output, _command(), failures)
    _show(write_results([output], output))
    return _finish(failures)


def report(options: argparse.Namespace) -> int:
    """Join results folders."""
    _show(write_results([Path(folder) for folder in options.results], Path(options.output_dir)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="train|evaluate|report")

    command = commands.add_parser("train", help="train the folds of a bundle")
    command.set_defaults(command=train)
    command.add_argument("--bundle", required=True, help="folder of the bundle")
    _add_data(command)
    command.add_argument("--setting", type=int, choices=(1, 2), default=1)
    command.add_argument("--exclude_rule", choices=("any", "all"), default="any")
    command.add_argument(
        "--groups",
        nargs="+",
        metavar="VALUES",
        help="setting 2: label values left out together, one model per group: 2,3 1,4",
    )
    command.add_argument("--plan", help="JSON of the stages; default: the bundle's own")
    command.add_argument("--minutes", type=float, help="stop in time and go on at the next call")
    command.add_argument(
        "--knobs", nargs="*", default=[], metavar="KNOB=VALUE", help="knobs of train.json"
    )

    command = commands.add_parser("evaluate", help="evaluate methods")
    command.set_defaults(command=evaluate)
    command.add_argument(
        "--subjects",
        nargs="+",
        required=True,
        help="mask_copy, supervised_unet, universeg:WEIGHTS, BUNDLE[:untrained|FILE|TRAINED], "
        "package.module:Class",
    )
    _add_data(command)
    command.add_argument("--rule", choices=sorted(RULES), default="ep1-alp")
    command.add_argument("--num_folds", type=int, default=5)
    command.add_argument("--shots", type=int, nargs="+", default=[1])
    command.add_argument("--choices", type=int, nargs="+", help="choices of support, from 0")
    command.add_argument(
        "--labelled", nargs="+", choices=("sections", "all"), default=["sections", "all"]
    )
    command.add_argument("--structures", help="values, names, or {name: value}")
    command.add_argument("--spatial_size", type=int, default=256)
    command.add_argument("--modality", choices=("auto", "mr", "ct"), default="auto")
    command.add_argument("--slice_axis", default="auto")
    command.add_argument("--ignore_spacing", action="store_true")
    command.add_argument("--options", help="{subject: {option: value}}")
    command.add_argument("--threads", type=int, help="threads of torch")

    command = commands.add_parser("report", help="join results folders")
    command.set_defaults(command=report)
    command.add_argument("results", nargs="+")
    command.add_argument("--output_dir", required=True)
    return parser


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset_dir", required=True, help="folder of labelled scans")
    command.add_argument("--output_dir", required=True)
    command.add_argument("--folds", type=int, nargs="+", help="default: all")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise DataError(f"--groups: expected label values like 2,3, got {text}.") from None


def _pair(text: str) -> tuple[str, object]:
    knob, equals, value = text.partition("=")
    if not equals:
        raise DataError(f"--knobs: expected KNOB=VALUE, got {text}.")
    return knob, _yaml(value, knob)


def _yaml(text: str, option: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError(f"{option}: {text} cannot be read ({error}); check the quotes.") from error


def _head(spec: str) -> str:
    return spec.partition(":")[0]


def _command() -> str:
    """Return this command without the folders of this machine."""
    words = ["python", "tools/benchmark.py", *sys.argv[1:]]
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        if before == "--output_dir":
            continue
        if word != "--output_dir":
            kept.append(Path(word).name if before == "--dataset_dir" else word)
    return " ".join(json.dumps(word) if " " in word else word for word in kept)


def _show(paths: list[Path]) -> None:
    print(paths[0].read_text(encoding="utf-8"))
    print("\n".join(map(str, paths)))


def _finish(failures: list[str]) -> int:
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
