"""The bundles of the repository, and what their configs say about the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in REPOSITORY.glob("bundles/*/configs/train.json"))
# what all bundles share is tested to the last detail with this one, whose network is the quickest
REFERENCE = REPOSITORY / "bundles" / "ssl_alpnet"


def read_config(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


def network_knobs(bundle: Path) -> dict[str, Any]:
    """Return the knobs of ``train.json`` that its network is built by, with their values."""
    config = read_config(bundle, "train")
    arguments = config["network_def"].values()
    names = [text[1:] for text in arguments if text.startswith("@") and text != "@stored_support"]
    return {name: config[name] for name in names}


def build_network(bundle: Path, *overlays: str, **knobs: object) -> nn.Module:
    """Return the network of ``inference.json`` under overlays, with random weights, no support."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{n}.json") for n in ("inference", *overlays)])
    parser.update({"stored_support": None, **knobs})
    return parser.get_parsed_content("network_def")
