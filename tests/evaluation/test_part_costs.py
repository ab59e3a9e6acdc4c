from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fsmis_components.evaluation.part_costs import REST, PartCost, network_cost
from fsmis_components.networks import CoW


class Levels(NamedTuple):
    high: Tensor


class TinyEncoder(nn.Module):
    """Slices of 16 x 16 become features of 4 x 4 in 3 channels."""

    stride = pad_multiple = 4
    out_channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 4, 4, bias=False)

    def forward(self, image: Tensor) -> Levels:
        return Levels(self.conv(image))


class AskingNetwork(nn.Module):
    """Multiplies two matrices, one with a row for each pixel of the mask; has no known part."""

    def encode(self, image: Tensor) -> Tensor:
        return image

    def build_support(self, features: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
        return torch.zeros(int(masks.sum()), 2) @ torch.zeros(2, 3)

    def segment(self, features: Tensor, state: Tensor, section_weights: None) -> Tensor:
        return state.T @ state


def tiny_cow(**settings: object) -> CoW:
    sizes = {"num_prototypes": (3, 5), "num_hard": (1, 2), "prototype_grid": 2}
    widths = {"predictor_width": 2, "fusion_widths": (2, 3)}
    return CoW(TinyEncoder(), **{**sizes, **widths, **settings})  # type: ignore[arg-type]


def test_values_computed_by_hand() -> None:
    """16 positions, 3 channels, a square of 4 positions for the prototypes."""
    encoding = 16 * 48
    join = 16 * (9 * 3 * 2) + 16 * (9 * 9) + 3 * 18 + 2 * 9 * 16  # features, taps, prototype twice
    residuals = 6 * 16 * 36
    pyramid = 4 + 16 * (4 + 3 * 36) + 16 * 20 + 16 * 2
    means = 4 * (4 * 16 * 16 + 4 * 16 * 4 + 16 * 3)  # class, rest, two edges
    assert network_cost(tiny_cow, 16) == [
        PartCost("encoder", 48, encoding, encoding),
        PartCost(
            "self-prediction decoder",
            (9 * 9 * 2 + 2) + 6 * 38 + 6 + (6 + 3 * 38) + (10 * 2 + 2) + 3,
            join + residuals + pyramid,
            0,
        ),
        PartCost("prototype mining, foreground", 4 * 3 + 3 + 3 * 3 + 3, 3 * (4 * 3 + 3 * 3), 0),
        PartCost("prototype mining, background", 4 * 5 + 5 + 5 * 5 + 5, 3 * (4 * 5 + 5 * 5), 0),
        PartCost("fusion, foreground", 5 * 2 + 3 * 36 + 2, 2 * 5 * 3, 16 * (3 * 36 + 2)),
        PartCost("fusion, background", 7 * 3 + 3 * 81 + 3, 3 * 7 * 3, 16 * (3 * 81 + 3)),
        PartCost(REST, 0, means, 16 * 3 * (2 + 3)),
    ]


def test_parts_that_a_variant_lacks_are_left_out() -> None:
    parts = network_cost(lambda: tiny_cow(self_prediction=False, hpg="none", fusion="mean"), 16)
    assert [part.title for part in parts if part.parameters] == ["encoder"]
    assert parts[-1].query == 2 * 16 * 3  # one cosine map for either class


def test_a_network_that_asks_what_the_mask_holds_gets_one() -> None:
    inside = 4 * 4  # of 16 x 16
    support, query = inside * 2 * 3, 3 * inside * 3
    assert network_cost(AskingNetwork, 16) == [PartCost(REST, 0, support, query)]


def test_the_network_is_left_as_it_was() -> None:
    made: list[CoW] = []

    def build() -> CoW:
        made.append(tiny_cow())
        return made[-1]

    network_cost(build, 16)
    assert len(made) == 1  # nothing asked for values
    for module in made[0].modules():
        assert not {"forward", "mix"} & set(vars(module))


def test_a_fault_of_the_network_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="fusion"):
        network_cost(lambda: tiny_cow(fusion="nothing"), 16)
