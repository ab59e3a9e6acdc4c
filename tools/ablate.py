"""Ablations: what each part of a bundle's network is worth, by one short schedule.

    python tools/ablate.py --bundle bundles/cow --dataset_dir D --output_dir O
    python tools/ablate.py --report_only --output_dir O

The plan (variants, seeds, folds, schedule) is JSON, by default configs/ablation.json of the bundle.
Everything goes on where it was interrupted when the same command is given again. Two processes may
share O when each is given other --seeds or --variants. The plan and the tables are described in
fsmis_components/evaluation/README.md.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.ablation import (
    read_ablation_plan,
    run_ablation,
    write_ablation,
)


def main(arguments: list[str] | None = None) -> int:
    """Run an ablation, or only write its tables; return 0, or 1 where something failed."""
    options = _options(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the trainings, which are commands
    try:
        failures = [] if options.report_only else _run(options)
        paths = write_ablation(options.output_dir)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; give the same command to go on", file=sys.stderr)
        return 130
    if paths:
        print(paths[0].read_text(encoding="utf-8"))
    print("\n".join(map(str, paths)) or f"{options.output_dir}: nothing is finished yet")
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


def _run(options: argparse.Namespace) -> list[str]:
    if not options.bundle or not options.dataset_dir:
        raise DataError("--bundle and --dataset_dir: an ablation needs both; name them.")
    plan = options.plan or Path(options.bundle) / "configs" / "ablation.json"
    return run_ablation(
        read_ablation_plan(plan),
        options.bundle,
        options.dataset_dir,
        options.output_dir,
        variants=options.variants,
        seeds=options.seeds,
        folds=options.folds,
        minutes=options.minutes,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", help="folder of the bundle")
    parser.add_argument("--dataset_dir", help="folder of labelled scans")
    parser.add_argument("--output_dir", required=True, help="trainings, results and tables")
    parser.add_argument("--plan", help="JSON; default: configs/ablation.json of the bundle")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="some of the plan's")
    parser.add_argument("--seeds", nargs="+", type=int, help="some of the plan's")
    parser.add_argument("--folds", nargs="+", type=int, help="some of the plan's")
    parser.add_argument("--minutes", type=float, help="stop in time and go on at the next call")
    parser.add_argument("--threads", type=int, help="threads of torch, in trainings as well")
    parser.add_argument(
        "--report_only", action="store_true", help="write the tables of what is finished"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
