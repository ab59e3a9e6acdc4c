"""Time of prototype similarity, beside what one would write without it.

    python tools/benchmark_similarity.py --output_dir similarity
    python tools/benchmark_similarity.py --output_dir similarity --threads 1 --prototypes 16 1024

One query slice against the prototypes of one structure, reduced by softmax, forward and with the
backward pass, on the GPU where there is one. similarity.md is written after each size, so that an
interrupted run keeps what it has.
"""

import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer
from tqdm import tqdm

from fsmis_components.commands.command_line import chosen, command, listed
from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.records import surroundings
from fsmis_components.evaluation.tables import pipe_table
from fsmis_components.ops.similarity import prototype_similarity

SCALE, EPS = 20.0, 1e-4  # ALPNet's
BASE = "matmul + softmax"
BACKENDS = ("auto", "streamed", "reference", "triton")
CONTENDERS = (BASE, "torch.compile", "attention", *BACKENDS)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TITLES = ("dtype", "side", "C", "P", "pass", "contender", "ms", "quartiles", "speed", "error")

Solve = Callable[[Tensor, Tensor], Tensor]


def compare(
    output_dir: Path,
    threads: int | None = None,
    dtypes: Any = ("float32", "bfloat16"),
    sides: Any = 64,
    channels: Any = 256,
    prototypes: Any = (16, 64, 256, 1024, 4096, 8192),
    contenders: Any = CONTENDERS,
    seconds: float = 1.0,
) -> None:
    """Measure the time of prototype similarity; write and print the table.

    Args:
        output_dir: new folder for the table.
        threads: threads of torch.
        dtypes: float32, bfloat16 or float16.
        sides: sides of the features.
        channels: their channels.
        prototypes: numbers of prototypes.
        contenders: some of those that there are.
        seconds: for which each is repeated.

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
    rows: list[list[object]] = []
    for dtype, side, width, count in tqdm(list(itertools.product(kinds, *sizes)), unit="size"):
        generator = torch.Generator().manual_seed(0)  # of the CPU: the same on every device
        shapes = (1, width, side, side), (1, 1, count, width), (1, 1, side, side)
        query, protos, grad = (
            torch.randn(shape, generator=generator).to(device, DTYPES[dtype]) for shape in shapes
        )
        for title, gradient in (("forward", None), ("forward + backward", grad)):
            base = float("nan")
            for name in dict.fromkeys([BASE, *names]):
                cells = measure(name, query, protos, gradient, seconds)
                base = float(cells[0]) if name == BASE else base
                speed = f"{base / float(cells[0]):.2f}" if cells[1] else ""
                rows.append([dtype, side, width, count, title, name, *cells[:2], speed, cells[2]])
        text = f"{pipe_table(TITLES, rows, {0, 4, 5})}\n\nspeed: against {BASE}; {facts}\n"
        atomic_write_text(path, text)
    print(text, end="")


def measure(
    name: str, query: Tensor, prototypes: Tensor, grad: Tensor | None, seconds: float
) -> tuple[str, str, str]:
    """Milliseconds, their quartiles and the largest error of a contender, or why it did not run.

    Args:
        name: of the contender.
        query: (1, C, H, W).
        prototypes: (1, 1, P, C).
        grad: gradient of the result (1, 1, H, W), for which those of both operands are asked.
        seconds: for which it is repeated.
    """
    solve = _contender(name, query.device)
    expected = _contender("reference", query.device)(query.double(), prototypes.double())
    operands = [tensor.clone().requires_grad_(grad is not None) for tensor in (query, prototypes)]

    def call() -> Tensor:
        result = solve(*operands)
        if grad is not None:
            torch.autograd.grad(result, operands, grad.to(result.dtype))
        return result.detach()

    try:
        error = float((call().double() - expected).abs().max())
    except (NotImplementedError, torch.OutOfMemoryError) as refused:
        return "skipped: " + str(refused).partition("\n")[0], "", ""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    found = timer.blocked_autorange(min_run_time=seconds)
    low, high = (f"{1e3 * value:.3f}" for value in (found._p25, found._p75))
    return f"{1e3 * found.median:.3f}", f"{low} to {high}", f"{error:.0e}"


def _contender(name: str, device: torch.device) -> Solve:
    if name in BACKENDS:
        return lambda query, prototypes: prototype_similarity(
            query, prototypes, scale=SCALE, eps=EPS, backend=name
        )
    if name != "torch.compile":
        return _plain if name == BASE else _attention
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return _no_compiler
    torch.compiler.reset()  # no size pays for the shapes of those before
    return torch.compile(_plain, fullgraph=True, dynamic=False)


def _no_compiler(query: Tensor, prototypes: Tensor) -> Tensor:
    raise NotImplementedError("torch.compile needs a C++ compiler on a CPU")


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
