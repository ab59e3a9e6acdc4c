"""Parameters and multiply-adds of the parts of a bundle's network, as a Markdown table.

    python tools/network_cost.py bundles/cow bundles/ssl_alpnet
    python tools/network_cost.py bundles/cow --spatial_size 128 --output cost.md

Each network is taken in its default size and, beside it, in that of configs/paper.json where the
bundle has one. Nothing is trained or downloaded, and no weights are needed.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser
from torch import nn

from fsmis_components.data.atomic import atomic_write_text
from fsmis_components.data.errors import DataError
from fsmis_components.data.json_text import parse_json
from fsmis_components.evaluation.part_costs import REST, PartCost, network_cost
from fsmis_components.evaluation.pipe_table import pipe_table

PAPER = "paper"
NOTE = """\
Multiply-adds of convolutions and matrix products, in billions (G). *Support slice*:
encoding one slice and making the support state of one structure. *Query slice*: encoding one slice
and segmenting one structure by one section. A support slice is paid once, a query slice each time.
"""


@dataclass(frozen=True)
class Described:
    """What the paper's released code costs, computed from its list of layers at 256 x 256.

    Attributes:
        title: of the row.
        parts: titles of our parts.
        parameters: millions.
        work: multiply-adds per slice (encoder) or slice pair.
        why: where ours differs.
    """

    title: str
    parts: tuple[str, ...]
    parameters: str
    work: str
    why: str


# by the name of the bundle; CoW: Jiang and Zhang, IJCAI 2025, which gives no cost itself
DESCRIBED = {
    "cow": (
        Described(
            "encoder, one slice",
            ("encoder",),
            "46.1",
            "about 130",
            "layer4, fc and the second reduction, which CoW never uses, are left out",
        ),
        Described(
            "self-prediction decoder",
            ("self-prediction decoder",),
            "30.15",
            "about 120",
            "two slots of the first layer hold a constant: a small product, no convolution",
        ),
        Described(
            "prototype mining, fore- + background",
            ("prototype mining, foreground", "prototype mining, background"),
            "6.56 + 39.68",
            "about 23",
            "the same layers",
        ),
        Described(
            "fusion, fore- + background",
            ("fusion, foreground", "fusion, background"),
            "0.28 + 10.08",
            "about 42",
            "the first layer mixes prototypes, once per support slice, instead of their maps",
        ),
        Described(
            "whole network",
            (),
            "137.6",
            "-",
            "as above; the released code also holds 4.73 that it never calls",
        ),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return 0, or 1 where a bundle cannot be used."""
    options = _options(arguments)
    try:
        parts = [_section(root, options.config, options.spatial_size) for root in options.bundles]
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    text = "\n".join([*parts, NOTE])
    print(text, end="")
    if options.output:
        atomic_write_text(options.output, text)
    return 0


def cost_table(sizes: dict[str, list[PartCost]]) -> str:
    """The Markdown table of one network in several sizes.

    Args:
        sizes: name of a size and its parts.
    """
    titles = dict.fromkeys(part.title for parts in sizes.values() for part in parts)
    titles = sorted(titles, key=REST.__eq__)  # stable: the rest comes last
    head = ["part"]
    for size in sizes:
        head += [f"{size}: parameters (M)", "support slice (G)", "query slice (G)"]
    rows = [[title, *_cells(sizes, title)] for title in titles]
    sums = []
    for parts in sizes.values():
        sums += _numbers(parts)
    rows.append([f"**{cell}**" for cell in ("sum", *sums)])
    return _markdown(head, rows)


def comparison_table(parts: list[PartCost], described: tuple[Described, ...]) -> str:
    """The paper's size beside what the released code's layers cost."""
    rows = []
    for line in described:
        own = [part for part in parts if part.title in line.parts] or parts
        parameters = " + ".join(f"{part.parameters / 1e6:.2f}" for part in own)
        work = f"{sum(_once(part) for part in own) / 1e9:.1f}"
        if not line.parts:
            parameters, work = f"{sum(part.parameters for part in parts) / 1e6:.2f}", "-"
        rows.append([line.title, parameters, line.parameters, work, line.work, line.why])
    head = ["part", "parameters (M)", "released", "multiply-adds (G)", "released", "difference"]
    return _markdown(head, rows)


def build_network(root: Path, overlay: Path | None) -> nn.Module:
    """The network that `configs/inference.json` describes, under an overlay, untrained.

    Raises:
        DataError: there is no such bundle, or a config cannot be read.
    """
    paths = [root / "configs" / "inference.json", *([overlay] if overlay else [])]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: there is no such file; name the folder of a bundle, and with --config "
                "one of its overlays."
            )
        try:
            parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); repair it.") from error
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    parser["stored_support"] = None  # a support is no part of the network
    return parser.get_parsed_content("network_def")


def _section(root: Path, config: Path | None, size: int) -> str:
    overlays: dict[str, Path | None] = {"default": None}
    paper = root / "configs" / f"{PAPER}.json"
    if config is not None:
        named = root / "configs" / f"{config.stem}.json"
        overlays[config.stem] = config if config.is_file() else named
    elif paper.is_file():
        overlays[PAPER] = paper
    costs = {
        name: network_cost(lambda overlay=overlay: build_network(root, overlay), size)
        for name, overlay in overlays.items()
    }
    name = root.resolve().name
    text = f"## {name}, slices of {size} x {size}\n\n{cost_table(costs)}"
    if name in DESCRIBED and PAPER in costs and size == 256:
        text += (
            "\nThe paper's size beside its released code, whose cost is computed from the list of "
            f"its layers:\n\n{comparison_table(costs[PAPER], DESCRIBED[name])}"
        )
    return text


def _cells(sizes: dict[str, list[PartCost]], title: str) -> list[str]:
    cells = []
    for parts in sizes.values():
        own = [part for part in parts if part.title == title]
        cells += _numbers(own) if own else ["-"] * 3
    return cells


def _numbers(parts: list[PartCost]) -> list[str]:
    parameters, support, query = (
        sum(getattr(part, name) for part in parts) for name in ("parameters", "support", "query")
    )
    return [f"{parameters / 1e6:.3f}", f"{support / 1e9:.3f}", f"{query / 1e9:.3f}"]


def _once(part: PartCost) -> int:
    """Multiply-adds for a slice pair; of the encoder, for one slice."""
    return part.query if part.title == "encoder" else part.support + part.query


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    text = {column for column, title in enumerate(head) if title in ("part", "difference")}
    return pipe_table(head, rows, text) + "\n"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path, help="folders of bundles")
    parser.add_argument(
        "--config", type=Path, help="overlay beside the default, a file or a name in configs/"
    )
    parser.add_argument("--spatial_size", type=int, default=256, help="side of the slices")
    parser.add_argument("--output", type=Path, help="also write the text to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
