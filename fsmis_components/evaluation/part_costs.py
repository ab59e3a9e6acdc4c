"""What a network costs: parameters and multiply-adds of its parts, per slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

REST = "rest: means under masks, similarities"
# title of a part and where a network of the collection has it; a network may lack some
PARTS = {
    "encoder": "encoder",
    "self-prediction decoder": "miner.predictor",
    "prototype mining, foreground": "miner.foreground",
    "prototype mining, background": "miner.background",
    "fusion, foreground": "foreground_fusion",
    "fusion, background": "background_fusion",
    "deep module": "deep",
    "prototypes, their interaction": "decision.prototypes",
    "query's own prototypes": "decision.self_support",
    "self-learning decoder": "decision.decoder",
}
_METHODS = ("forward", "mix")  # by which the network calls its parts


@dataclass(frozen=True)
class PartCost:
    """The cost of one part.

    Attributes:
        title: a key of `PARTS`, or `REST`.
        parameters: their number.
        support: multiply-adds for one support slice with one structure.
        query: multiply-adds for one query slice with one structure and one section.
    """

    title: str
    parameters: int
    support: int
    query: int


def network_cost(build: Callable[[], nn.Module], spatial_size: int = 256) -> list[PartCost]:
    """Count the parameters and multiply-adds of a network's parts.

    Counted are those of convolutions and matrix products, half of what PyTorch's counter calls
    FLOPs. Resizing, sorting, norms and activations are not. The structure of the support slice is
    a square of a quarter of its side; only where the network itself asks what a mask holds does
    the cost depend on it. Otherwise nothing is computed and no parameter takes memory.

    Args:
        build: makes the network; called once or twice.
        spatial_size: side of the slices in pixels.

    Returns:
        The parts that the network has, in the order of `PARTS`, and last the rest.
    """
    try:
        with FakeTensorMode():
            return _measured(build(), spatial_size)
    except DataDependentOutputException:  # a network that looks at values needs real ones
        return _measured(build(), spatial_size)


def _measured(network: nn.Module, size: int) -> list[PartCost]:
    network.eval()
    parts = {title: module for title, name in PARTS.items() if (module := _part(network, name))}
    image = torch.zeros(1, 1, size, size)
    mask = torch.zeros(1, 1, 1, size, size)
    first, last = size * 3 // 8, size * 5 // 8
    mask[..., first:last, first:last] = 1
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    with torch.no_grad():
        features, encoding = _counted(parts, lambda: network.encode(image))  # type: ignore[operator]
        state, support = _counted(
            parts,
            lambda: network.build_support(features, mask, valid),  # type: ignore[operator]
        )
        _, query = _counted(parts, lambda: network.segment(features, state, None))  # type: ignore[operator]
    sizes = {title: _num_parameters(module) for title, module in parts.items()}
    sizes[REST] = _num_parameters(network) - sum(sizes.values())
    return [
        PartCost(
            title,
            sizes[title],
            encoding[title] + support[title],
            encoding[title] + query[title],
        )
        for title in sizes
    ]


def _counted(
    parts: dict[str, nn.Module], run: Callable[[], Tensor]
) -> tuple[Tensor, dict[str, int]]:
    """What a stage returns, and the multiply-adds of each part and of the rest in it."""
    counter = FlopCounterMode(display=False)
    found = dict.fromkeys(parts, 0)
    with _watched(parts, counter, found), counter:
        result = run()
    found[REST] = counter.get_total_flops() - sum(found.values())
    return result, {title: flops // 2 for title, flops in found.items()}


@contextmanager
def _watched(
    parts: dict[str, nn.Module], counter: FlopCounterMode, found: dict[str, int]
) -> Iterator[None]:
    """Inside, the methods of the parts add what they cost to `found`."""
    watched = [
        (title, part, name)
        for title, part in parts.items()
        for name in _METHODS
        if hasattr(part, name)
    ]
    for title, part, name in watched:
        setattr(part, name, _adding(getattr(part, name), title, counter, found))
    try:
        yield
    finally:
        for _, part, name in watched:
            delattr(part, name)  # the class has its own


def _adding(
    method: Callable[..., Tensor], title: str, counter: FlopCounterMode, found: dict[str, int]
) -> Callable[..., Tensor]:
    def counted(*inputs: Tensor) -> Tensor:
        before = counter.get_total_flops()
        result = method(*inputs)
        found[title] += counter.get_total_flops() - before
        return result

    return counted


def _part(network: nn.Module, name: str) -> nn.Module | None:
    """The module of a dotted name; None where the network has none, or None in its place."""
    found: nn.Module | None = network
    for step in name.split("."):
        found = getattr(found, step, None)
    return found


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
