"""Variants of a bundle's ablation and its other knobs: each trains by the config and segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from block_scans import block_image, block_label
from bundle_folders import BUNDLES, read_config
from monai.bundle import ConfigParser
from torch import Tensor

from ablate import read_ablation_plan

pytestmark = pytest.mark.slow
PLANNED = [path for path in BUNDLES if (path / "configs" / "ablation.json").is_file()]
# sizes that make a bundle's network quick
SMALL: dict[str, dict[str, Any]] = {
    "cow": {
        "num_prototypes": [12, 20],
        "num_hard": [4, 6],
        "prototype_grid": 16,
        "predictor_width": 8,
        "fusion_widths": [4, 8],
    },
    "ipsnet": {
        "deep_width": 16,
        "split_width": 8,
        "decoder_widths": [16, 16, 8],
        "background_grid": 4,
    },
}
# knobs of a method, and sets of them, that its ablation does not try
OTHERS: dict[str, list[dict[str, Any]]] = {
    "cow": [
        {"self_prediction": False, "hpg": False, "fusion": "mean", "boundary_weight": 0.0},
    ],
    "ipsnet": [
        {"deep": False, "interaction": "mean", "low_level": False, "warmup_steps": 0},
        {"boundary_weight": 0.5},
    ],
}


def variants() -> list[Any]:
    found = []
    for bundle in PLANNED:
        plan = read_ablation_plan(bundle / "configs" / "ablation.json")
        knobs = {name: {**plan["common"], **own} for name, own in plan["variants"].items()}
        knobs |= {str(other): other for other in OTHERS[bundle.name]}
        found += [pytest.param(bundle, k, id=f"{bundle.name}-{n}") for n, k in knobs.items()]
    return found


@pytest.fixture(params=PLANNED, ids=lambda path: path.name)
def planned(request: pytest.FixtureRequest) -> Path:
    return request.param


def parsed(bundle: Path, **knobs: object) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    parser.update({**SMALL[bundle.name], **knobs})
    torch.manual_seed(0)
    return parser


def episode() -> dict[str, Tensor]:
    """Return two slices of a scan with two blocks, (1, 1, 24, 20), and their masks."""
    image, label = torch.from_numpy(block_image()), torch.from_numpy(block_label())
    image = (image - image.mean()) / image.std()
    masks = torch.stack([label == 1, label == 2]).float()
    return {
        "image": image[None, None, ..., 5],
        "label": masks[None, ..., 5],
        "support_image": image[None, None, None, ..., 6],
        "support_label": masks[None, None, ..., 6],
    }


@pytest.mark.parametrize(("bundle", "knobs"), variants())
def test_every_variant_trains_and_segments(bundle: Path, knobs: dict) -> None:
    parser = parsed(bundle, **knobs)
    network = parser.get_parsed_content("network_def").train()
    loss, optimizer = (parser.get_parsed_content(name) for name in ("loss", "optimizer"))
    batch = episode()
    before = {name: value.clone() for name, value in network.named_parameters()}
    total = loss(network(**batch), batch["label"])
    total.backward()
    optimizer.step()
    assert total.item() > 0
    changed = {n for n, value in network.named_parameters() if not torch.equal(value, before[n])}
    assert any(name.startswith("encoder.") for name in changed)
    del batch["label"]
    logits = network.eval()(**batch)
    assert logits.shape == (1, 3, 24, 20) and bool(torch.isfinite(logits).all())


def test_a_variant_is_the_reference_with_something_changed(planned: Path) -> None:
    """A value in the plan that is the reference's own would compare a network with itself."""
    plan = read_ablation_plan(planned / "configs" / "ablation.json")
    defaults = read_config(planned, "train")
    reference = {**defaults, **plan["common"], **plan["variants"][plan["reference"]]}
    for name, own in plan["variants"].items():
        assert {knob for knob in own if reference[knob] == own[knob]} == set(), name
        assert bool(own) or name == plan["reference"]


def test_weights_of_the_loss_are_the_knobs(planned: Path) -> None:
    """Each knob scales its own term and no other."""
    batch = episode()
    weights = read_config(planned, "train")["loss"]["weights"]
    terms_of = {str(weight)[1:]: term for term, weight in weights.items() if term != "query_loss"}
    parts = read_ablation_plan(planned / "configs" / "ablation.json")["common"]
    nothing = {**parts, **dict.fromkeys([*terms_of, "boundary_weight"], 0.0)}
    plain = parsed(planned, **nothing)
    network = plain.get_parsed_content("network_def").train()
    terms = network(**batch)
    base = plain.get_parsed_content("loss")(terms, batch["label"])
    torch.testing.assert_close(base, terms["query_loss"].mean())
    for knob, term in terms_of.items():
        loss = parsed(planned, **{**nothing, knob: 2.0}).get_parsed_content("loss")
        assert terms[term].mean() > 0
        torch.testing.assert_close(loss(terms, batch["label"]) - base, 2 * terms[term].mean())
