"""Parameters and multiply-adds of a bundle's network, as a Markdown table.

    python tools/network_cost.py bundles/cow
    python tools/network_cost.py bundles/cow --spatial_size 128 --config mine.json

The network is taken in its default size and, beside it, in that of configs/paper.json where the
bundle has one. Counted are multiply-adds of convolutions and matrix products, for one slice, one
structure and one section. Nothing is trained or downloaded, and no weights are needed.
"""

import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.tables import pipe_table


def show(bundle: Path, config: Path | None = None, spatial_size: int = 256) -> None:
    """Print the table of parameters and multiply-adds of a bundle's network.

    Args:
        bundle: folder of the bundle.
        config: overlay beside the default, in place of configs/paper.json.
        spatial_size: side of the slices.

    Raises:
        DataError: there is no such bundle or overlay.
    """
    default, paper = (bundle / "configs" / f"{name}.json" for name in ("inference", "paper"))
    overlay = config or (paper if paper.is_file() else None)
    costs = {"default": network_cost([default], spatial_size)}
    if overlay:
        costs[overlay.stem] = network_cost([default, overlay], spatial_size)
    titles = dict.fromkeys(title for cost in costs.values() for title in cost)
    rows = [[title, *(cost.get(title, "-") for cost in costs.values())] for title in titles]
    size = f"{spatial_size} x {spatial_size}"
    print(f"## {bundle.resolve().name}, slices of {size}\n\n{pipe_table(['', *costs], rows)}")


def network_cost(configs: list[Path], size: int) -> dict[str, str]:
    """Cost of the untrained network that configs describe, by title."""
    for path in configs:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; name the folder of a bundle.")
    parser = ConfigParser()
    parser.read_config(list(map(str, configs)))
    parser["stored_support"] = None  # a support is no part of the network
    network = parser.get_parsed_content("network_def").eval()
    mask = torch.zeros(1, 1, 1, size, size)
    mask[..., size * 3 // 8 : size * 5 // 8, size * 3 // 8 : size * 5 // 8] = 1
    counters = [FlopCounterMode(display=False) for _ in range(3)]
    with torch.no_grad():
        with counters[0]:
            features = network.encode(torch.zeros(1, 1, size, size))
        with counters[1]:
            state = network.build_support(features, mask, torch.ones(1, 1, 1, dtype=torch.bool))
        with counters[2]:
            network.segment(features, state, None)
    steps = ("encode a slice (G)", "make the support's state (G)", "segment a slice (G)")
    parts = {f"parameters of `{name}` (M)": part for name, part in network.named_children()}
    sizes = {
        title: sum(weight.numel() for weight in part.parameters()) / 1e6
        for title, part in (parts | {"parameters (M)": network}).items()
        if any(True for _ in part.parameters())
    }
    work = {
        step: counter.get_total_flops() / 2e9 for step, counter in zip(steps, counters, strict=True)
    }
    return {title: f"{number:.3f}" for title, number in (sizes | work).items()}


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 1 where there is no such bundle."""
    return command(show, arguments)


if __name__ == "__main__":
    sys.exit(main())
