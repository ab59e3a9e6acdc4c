"""The bundles of the repository, and what their configs say about the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from fsmis_components.data.weights import fill_network
from fsmis_components.support import stored_state

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


def export_arguments(bundle: Path, path: Path) -> dict[str, str]:
    """Return what MONAI's export commands are told, as in the bundles' pages."""
    return {
        "net_id": "network_def",
        "filepath": str(path),
        "ckpt_file": str(bundle / "models" / "model.pt"),
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": str(bundle / "configs" / "inference.json"),
        "bundle_root": str(bundle),
    }


def shipped_network(bundle: Path) -> nn.Module:
    """Return the network with its shipped weights and default support, for evaluation."""
    support = stored_state(bundle / "models" / "support_pack.safetensors")
    network = build_network(bundle, stored_support=support).eval()
    fill_network(network, bundle / "models" / "model.pt")
    return network


def build_network(bundle: Path, *overlays: str, **knobs: object) -> nn.Module:
    """Return the network of ``inference.json`` under overlays, with random weights, no support."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{n}.json") for n in ("inference", *overlays)])
    parser.update({"stored_support": None, **knobs})
    return parser.get_parsed_content("network_def")
