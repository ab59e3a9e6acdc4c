"""Time and memory of prototype similarity, beside what one would write without it.

    python tools/benchmark_similarity.py --output_dir similarity
    python tools/benchmark_similarity.py --output_dir quick --quick --threads 1

Contenders take turns in one process: the backends, matmul + softmax, its torch.compile, the
broadcast cosine of the field's codes, and scaled dot product attention. The output folder gets
similarity.md, .csv, .json and .png. Without a GPU the whole run takes hours: name fewer sizes, or
take --quick.
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.similarity_benchmark import (
    all_contenders,
    claim_folder,
    draw_chart,
    measure_case,
    measure_ceilings,
    plan_cases,
    run_facts,
    write_tables,
)
from fsmis_components.evaluation.similarity_benchmark.contenders import Contender
from fsmis_components.evaluation.similarity_benchmark.problems import (
    CHANNELS,
    DTYPES,
    PROTOTYPES,
    REDUCTIONS,
    SIDES,
)
from fsmis_components.evaluation.similarity_benchmark.results import NAME
from fsmis_components.evaluation.similarity_benchmark.work import PASSES

QUICK_SIDES, QUICK_PROTOTYPES, QUICK_CHANNELS = (32, 64), (64, 1024), (256,)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; return 0, or 1 where something asked for cannot be done."""
    options = _options(arguments)
    try:
        paths = _run(options)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; what was measured is in {options.output_dir}", file=sys.stderr)
        return 130
    print(paths[0].read_text(encoding="utf-8"))
    print("\n".join(map(str, paths)))
    return 0


def _run(options: argparse.Namespace) -> list[Path]:
    device = _device(options.device)
    for name in ("rounds", "threads", "broadcast_gib", "shortest_ms"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise DataError(f"--{name}: expected a number above 0, got {value}.")
    if options.threads:
        torch.set_num_threads(options.threads)
    quick = options.quick
    cases = plan_cases(
        options.reductions,
        options.dtypes,
        options.sides or (QUICK_SIDES if quick else SIDES),
        options.prototypes or (QUICK_PROTOTYPES if quick else PROTOTYPES),
        options.channels or (QUICK_CHANNELS if quick else CHANNELS),
        batch=options.batch,
        structures=options.structures,
        every_combination=options.every_combination,
    )
    contenders = _chosen(options.contenders, device, options.broadcast_gib)
    settings = {
        "seed": options.seed,
        "rounds": options.rounds,
        "shortest_ms": options.shortest_ms,
        "batch": options.batch,
        "structures": options.structures,
        "broadcast_gib": options.broadcast_gib,
    }
    claim_folder(options.output_dir, run_facts(device, {}, settings))
    ceilings = {name: measure_ceilings(DTYPES[name], device) for name in options.dtypes}
    facts = run_facts(device, ceilings, settings)
    todo = [(case, direction) for case in cases for direction in options.passes]
    rows = []
    progress = tqdm(todo, unit="case")
    for case, direction in progress:
        progress.set_postfix_str(f"{case.describe()} {direction}")
        rows += measure_case(
            case,
            contenders,
            direction,
            ceilings[case.dtype],
            device=device,
            seed=options.seed,
            rounds=options.rounds,
            shortest=options.shortest_ms / 1e3,
        )
        # after each case, so that an interrupted run keeps what it has
        paths = write_tables(options.output_dir, facts, rows)
    chart = draw_chart(rows, options.output_dir / f"{NAME}.png")
    return [*paths, *([chart] if chart else [])]


def _chosen(names: list[str] | None, device: torch.device, gib: float) -> list[Contender]:
    known = all_contenders(device, int(gib * 2**30))
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise DataError(
            f"--contenders: {unknown[0]!r} is unknown; choose among {', '.join(map(repr, known))}."
        )
    return [known[name] for name in names or known]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("--device: PyTorch finds no CUDA device here; use --device cpu.")
    return torch.device(name)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="new folder for tables and picture")
    add("--quick", action="store_true", help="few sizes")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", type=int, help="threads of torch")
    add("--dtypes", nargs="+", choices=DTYPES, default=["float32", "bfloat16"])
    add("--reductions", nargs="+", choices=REDUCTIONS, default=["softmax"])
    add("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    add("--sides", nargs="+", type=int, help=f"of the features; default: {_words(SIDES)}")
    add("--prototypes", nargs="+", type=int, help=f"default: {_words(PROTOTYPES)}")
    add("--channels", nargs="+", type=int, help=f"default: {_words(CHANNELS)}")
    add("--batch", type=int, default=1, help="query slices")
    add("--structures", type=int, default=1, help="each with prototypes of its own")
    add("--every_combination", action="store_true", help="of sides and channels")
    add("--contenders", nargs="+", metavar="NAME", help="default: all")
    add("--rounds", type=int, default=11, help="turns of each contender")
    add("--shortest_ms", type=float, default=20.0, help="a shorter turn repeats the call")
    add("--broadcast_gib", type=float, default=1.0, help="bound of the broadcast cosine")
    add("--seed", type=int, default=0, help="of the inputs")
    return parser.parse_args(arguments)


def _words(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    sys.exit(main())
