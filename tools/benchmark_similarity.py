"""Time of prototype similarity, beside what one would write without it.

    python tools/benchmark_similarity.py
    python tools/benchmark_similarity.py --threads 1 --prototypes 16 1024

One query slice against the prototypes of one structure, reduced by softmax, forward and with the
backward pass, on the GPU where there is one.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Compare, Timer
from tqdm import tqdm

from fsmis_components.commands.command_line import chosen, command, listed
from fsmis_components.ops.similarity import prototype_similarity

SCALE, EPS = 20.0, 1e-4  # ALPNet's
BACKENDS = ("auto", "streamed", "reference", "triton")
CONTENDERS = ("matmul + softmax", "torch.compile", "attention", *BACKENDS)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def compare(
    threads: int | None = None,
    dtype: str = "float32",
    side: int = 64,
    channels: int = 256,
    prototypes: Any = (16, 64, 256, 1024, 4096, 8192),
    contenders: Any = CONTENDERS,
    seconds: float = 1.0,
) -> None:
    """Measure the time of prototype similarity and print the table.

    Args:
        threads: threads of torch.
        dtype: float32, bfloat16 or float16.
        side: of the features.
        channels: their channels.
        prototypes: numbers of prototypes.
        contenders: some of those that there are.
        seconds: for which each is repeated.
    """
    if threads:
        torch.set_num_threads(threads)
    names = [chosen("contenders", name, CONTENDERS) for name in listed(contenders)]
    kind = DTYPES[chosen("dtype", dtype, tuple(DTYPES))]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for count in tqdm(listed(prototypes, int), unit="size"):
        generator = torch.Generator().manual_seed(0)  # of the CPU: the same on every device
        shapes = (1, channels, side, side), (1, 1, count, channels), (1, 1, side, side)
        query, protos, grad = (
            torch.randn(shape, generator=generator).to(device, kind) for shape in shapes
        )
        operands = [query.requires_grad_(), protos.requires_grad_()]
        for name in names:
            solve = _contender(name)
            try:
                solve(*operands)
            except RuntimeError as refused:  # no such device, no compiler, too little memory
                tqdm.write(f"{name}, P = {count}: {str(refused).splitlines()[0]}")
                continue
            for title, text in (
                ("forward", "with torch.no_grad(): solve(*operands)"),
                ("forward + backward", "torch.autograd.grad(solve(*operands), operands, grad)"),
            ):
                timer = Timer(
                    text,
                    globals={"torch": torch, "solve": solve, "operands": operands, "grad": grad},
                    num_threads=torch.get_num_threads(),
                    label=f"{dtype}, {side} x {side} positions, {channels} channels, {device}",
                    sub_label=f"{title}, P = {count}",
                    description=name,
                )
                found.append(timer.blocked_autorange(min_run_time=seconds))
    print(Compare(found))


def _contender(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    if name in BACKENDS:
        return lambda query, prototypes: prototype_similarity(
            query, prototypes, scale=SCALE, eps=EPS, backend=name
        )
    if name != "torch.compile":
        return _attention if name == "attention" else _plain
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


if __name__ == "__main__":
    sys.exit(command(compare))
