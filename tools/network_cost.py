"""Parameters and multiply-adds of a bundle's network, as a Markdown table.

    python tools/network_cost.py bundles/cow
    python tools/network_cost.py bundles/cow --spatial_size 128 --config mine.json

The network is taken in its default size and, beside it, in that of configs/paper.json where the
bundle has one. Counted are multiply-adds of convolutions and matrix products, for one slice, one
structure and one section. Nothing is trained or downloaded, and no weights are needed.
"""

import argparse
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from fsmis_components.data.errors import DataError, exit_on_data_error
from fsmis_components.evaluation.pipe_table import pipe_table


@exit_on_data_error
def main(arguments: list[str] | None = None) -> None:
    """Print the table.

    Raises:
        DataError: there is no such bundle or overlay.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--config", type=Path, help="overlay beside the default, in place of paper")
    parser.add_argument("--spatial_size", type=int, default=256, help="side of the slices (256)")
    options = parser.parse_args(arguments)
    default, paper = (
        options.bundle / "configs" / f"{name}.json" for name in ("inference", "paper")
    )
    overlay = options.config or (paper if paper.is_file() else None)
    costs = {"default": network_cost([default], options.spatial_size)}
    if overlay:
        costs[overlay.stem] = network_cost([default, overlay], options.spatial_size)
    titles = dict.fromkeys(title for cost in costs.values() for title in cost)
    rows = [[title, *(cost.get(title, "-") for cost in costs.values())] for title in titles]
    size = f"{options.spatial_size} x {options.spatial_size}"
    print(
        f"## {options.bundle.resolve().name}, slices of {size}\n\n{pipe_table(['', *costs], rows)}"
    )


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


if __name__ == "__main__":
    main()
