"""Time and memory of prototype similarity, beside what one would write without it.

    python tools/benchmark_similarity.py --output_dir similarity
    python tools/benchmark_similarity.py --output_dir similarity --threads 1 --prototypes 16 1024

One query slice against the prototypes of one structure, reduced by softmax, forward and with the
backward pass, on the GPU where there is one. In each round every contender has its turn, so that
what slows the machine slows all of them; speeds are against matmul + softmax within a round, median
and quartiles. similarity.md is written after each size, so that an interrupted run keeps what it
has.
"""

import itertools
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer
from tqdm import tqdm

from command import chosen, command, listed
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.provenance import surroundings
from fsmis_components.evaluation.tables import pipe_table
from fsmis_components.ops.similarity import prototype_similarity

SCALE, EPS = 20.0, 1e-4  # ALPNet's
SHORTEST = 0.02  # seconds; within a turn a shorter call is repeated
BASE = "matmul + softmax"
BACKENDS = ("auto", "streamed", "reference", "triton")
CONTENDERS = (BASE, "torch.compile", "attention", *BACKENDS)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TITLES = ("dtype", "side", "C", "P", "pass", "contender", "ms", "speed (quartiles)", "MiB", "error")

Solve = Callable[[Tensor, Tensor], Tensor]


def compare(
    output_dir: Path,
    threads: int | None = None,
    dtypes: Any = ("float32", "bfloat16"),
    sides: Any = 64,
    channels: Any = 256,
    prototypes: Any = (16, 64, 256, 1024, 4096, 8192),
    contenders: Any = CONTENDERS,
    rounds: int = 11,
) -> None:
    """Measure time and memory of prototype similarity; write and print the table.

    Args:
        output_dir: new folder for the table.
        threads: threads of torch.
        dtypes: float32, bfloat16 or float16.
        sides: sides of the features.
        channels: their channels.
        prototypes: numbers of prototypes.
        contenders: some of those that there are.
        rounds: turns of each contender.

    Raises:
        DataError: the output folder holds a table already.
    """
    path = output_dir / "similarity.md"
    if path.exists():
        raise DataError(f"{path}: would be overwritten; name another --output_dir.")
    if threads:
        torch.set_num_threads(threads)
    names = [chosen("contenders", name, CONTENDERS) for name in listed(contenders)]
    kinds = [chosen("dtypes", kind, tuple(DTYPES)) for kind in listed(dtypes)]
    sizes = [listed(values, int) for values in (sides, channels, prototypes)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = "; ".join(f"{key}: {value}" for key, value in surroundings(device).items())
    rows: list[list[str]] = []
    for dtype, side, width, count in tqdm(list(itertools.product(kinds, *sizes)), unit="size"):
        generator = torch.Generator().manual_seed(0)  # of the CPU: the same on every device
        inputs = [
            torch.randn(shape, generator=generator).to(device, DTYPES[dtype])
            for shape in [
                (1, width, side, side),
                (1, 1, count, width),
                (1, 1, side, side),
            ]
        ]
        for title, backward in [("forward", False), ("forward + backward", True)]:
            cells = measure(names, inputs, backward, rounds)
            size = [dtype, f"{side}", f"{width}", f"{count}", title]
            rows += [[*size, name, *figures] for name, figures in cells.items()]
        table = pipe_table(TITLES, rows, {0, 4, 5})
        note = "MiB: peak beside inputs and results. error: against the definition in float64."
        atomic_write_text(path, f"{table}\n\n{note} {facts}\n")
    print(path.read_text(encoding="utf-8"), end="")


def measure(
    names: Sequence[str], inputs: Sequence[Tensor], backward: bool, rounds: int
) -> dict[str, list[str]]:
    """Measure contenders beside the base.

    Args:
        names: of the contenders.
        inputs: query (1, C, H, W), prototypes (1, 1, P, C), the result's gradient (1, 1, H, W).
        backward: whether the gradients of query and prototypes are asked for too.
        rounds: turns of each contender.

    Returns:
        For each contender milliseconds, speed, memory and error, or in words why it did not run.
    """
    query, prototypes, grad = inputs
    expected = _contender("reference", query.device)(query.double(), prototypes.double())
    cells: dict[str, list[str]] = {}
    timers: dict[str, Timer] = {}
    for name in dict.fromkeys([BASE, *names]):
        try:
            solve = _contender(name, query.device)
            call = _call(solve, query, prototypes, grad if backward else None)
            error = float((call()[0].double() - expected).abs().max())
            cells[name] = [f"{temporary_bytes(call, query.device) / 2**20:.1f}", f"{error:.0e}"]
            timers[name] = Timer(
                "call()", globals={"call": call}, num_threads=torch.get_num_threads()
            )
        except (NotImplementedError, torch.OutOfMemoryError) as refused:
            cells[name] = ["skipped: " + str(refused).partition("\n")[0], "", "", ""]
    seconds = _paired_seconds(timers, rounds)
    for name, own in seconds.items():
        low, middle, high = np.quantile(
            np.divide(seconds.get(BASE, np.nan), own), (0.25, 0.5, 0.75)
        )
        speed = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        cells[name] = [f"{np.median(own) * 1e3:.3f}", speed, *cells[name]]
    return cells


def _paired_seconds(timers: dict[str, Timer], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call in each round, in which each timer has its turn, another one first."""
    repeats = {name: math.ceil(SHORTEST / timer.timeit(1).mean) for name, timer in timers.items()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    names = list(timers)
    for number in range(rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            found[name].append(timers[name].timeit(repeats[name]).mean)
    return found


def temporary_bytes(call: Callable[[], Sequence[Tensor]], device: torch.device) -> int:
    """The most bytes that were allocated at once during a call, less those of its results.

    On a CPU the profiler notes each allocation of PyTorch's allocator, in whichever thread; what a
    library takes from the system by itself is not seen.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        results = call()
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            results = call()
        changes = sorted(
            (event.start_ns(), event.nbytes())
            for event in recorded.profiler.kineto_results.events()
            if event.name() == "[memory]" and event.device_type() == DeviceType.CPU
        )
        peak = max(itertools.accumulate(change for _, change in changes), default=0)
    return max(0, peak - sum(result.untyped_storage().nbytes() for result in results))


def _call(
    solve: Solve, query: Tensor, prototypes: Tensor, grad: Tensor | None
) -> Callable[[], Sequence[Tensor]]:
    """What is timed: the result, and with a gradient also those of both operands."""

    def forward() -> Sequence[Tensor]:
        with torch.no_grad():
            return (solve(query, prototypes),)

    if grad is None:
        return forward
    asked = [tensor.clone().requires_grad_() for tensor in (query, prototypes)]

    def both() -> Sequence[Tensor]:
        result = solve(*asked)
        return (result.detach(), *torch.autograd.grad(result, asked, grad.to(result.dtype)))

    return both


def _contender(name: str, device: torch.device) -> Solve:
    if name in BACKENDS:
        return lambda query, prototypes: prototype_similarity(
            query, prototypes, scale=SCALE, eps=EPS, backend=name
        )
    if name != "torch.compile":
        return _plain if name == BASE else _attention
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise NotImplementedError("torch.compile needs a C++ compiler on a CPU")
    torch.compiler.reset()  # no size pays for the shapes of those before
    return torch.compile(_plain, fullgraph=True, dynamic=False)


def _plain(query: Tensor, prototypes: Tensor) -> Tensor:
    unit = F.normalize(query, dim=1, eps=EPS).flatten(2)  # (1, C, L)
    scores = SCALE * (F.normalize(prototypes, dim=3, eps=EPS)[0] @ unit)  # (1, P, L)
    return (scores.softmax(1) * scores).sum(1).view(1, 1, *query.shape[2:])


def _attention(query: Tensor, prototypes: Tensor) -> Tensor:
    """Positions ask, unit prototypes are keys and values: their weighted mean, by the position."""
    unit = F.normalize(query, dim=1, eps=EPS).flatten(2).transpose(1, 2)[:, None]  # (1, 1, L, C)
    keys = F.normalize(prototypes, dim=3, eps=EPS)
    weighted = F.scaled_dot_product_attention(unit, keys, keys, scale=SCALE)
    return SCALE * (unit * weighted).sum(3).view(1, 1, *query.shape[2:])


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where the table would be overwritten."""
    return command(compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
