"""Small networks of each method and pairs of block scans."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from block_scans import SHAPE, block_label, write_scan
from torch import Tensor, nn

from fsmis_components.data.cases import find_cases
from fsmis_components.data.geometry import SliceGrid
from fsmis_components.data.intensity import Normalisation
from fsmis_components.evaluation.decision_pictures import SlicePair, choose_pairs
from fsmis_components.evaluation.decision_pictures.slice_pair import dice
from fsmis_components.evaluation.labelled_slices import with_labelled_slices
from fsmis_components.evaluation.rules import RULES
from fsmis_components.evaluation.scoring import answer, load_query
from fsmis_components.evaluation.subjects.network import NetworkSubject
from fsmis_components.networks import CoW, EncoderLevels, IPSNet
from fsmis_components.support import load_support_set

GRID = SliceGrid(2, 1.0, 24)  # slices of 24 x 20, which the encoder pads to 24 x 24
RULE = Normalisation("mr")


class Levels(NamedTuple):
    high: Tensor


class TinyEncoder(nn.Module):
    stride, pad_multiple, out_channels = 4, 8, 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 4, 4)

    def forward(self, image: Tensor) -> Levels:
        return Levels(self.conv(image))


def tiny_cow(**settings: object) -> CoW:
    """A network whose square of prototypes has a cell for each pixel of the padded slice."""
    torch.manual_seed(0)
    sizes = {"num_prototypes": (8, 12), "num_hard": (4, 6), "prototype_grid": 24}
    widths = {"predictor_width": 4, "fusion_widths": (4, 6)}
    return CoW(TinyEncoder(), **{**sizes, **widths, **settings})  # type: ignore[arg-type]


class TinyLevels(nn.Module):
    """Four levels at the strides of the compact U-Net."""

    stride, pad_multiple = 4, 8
    channels, strides = (3, 4, 8, 8), (2, 4, 8, 4)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(1, c, s, s) for c, s in zip(self.channels, self.strides, strict=True)
        )

    def forward(self, image: Tensor) -> EncoderLevels:
        return EncoderLevels(*(conv(image) for conv in self.convs))


def tiny_ips(**settings: object) -> IPSNet:
    torch.manual_seed(0)
    sizes = {"deep_width": 8, "split_width": 4, "decoder_widths": (8, 8, 4), "background_grid": 3}
    return IPSNet(TinyLevels(), **{**sizes, **settings})  # type: ignore[arg-type]


def column_label(first: int, last: int, value: int = 1) -> np.ndarray:
    """Block 1 on the slices first..last."""
    label = block_label({1: value})
    kept = np.zeros(SHAPE[2], bool)
    kept[first : last + 1] = True
    label[:, :, :] = (label.any(2, keepdims=True) & kept) * value
    return label


def block_pairs(folder: Path, number: int | None = None) -> list[SlicePair]:
    """Pairs of both structures: image_2 by image_1."""
    for name in (1, 2):
        write_scan(folder, name, block_label())
    support = load_support_set(folder, support_ids=[1])
    return choose_pairs(support, find_cases(folder)[1], GRID, RULE, number)


def benchmark_dice(folder: Path, network: nn.Module, pairs: list[SlicePair]) -> list[float]:
    """The Dice of the pairs' query slices, of `block_pairs`, as the benchmark finds it."""
    support = with_labelled_slices(load_support_set(folder, support_ids=[1]), GRID, "sections")
    query = load_query(find_cases(folder)[1], [1, 2], GRID)
    subject = NetworkSubject(network, geometry={"spatial_size": 24})
    told = answer(subject, "ep1-alp", support, query, RULES["ep1-alp"])
    return [
        dice(*(found[pair.query.number, index] for found in (told.predicted, told.truth)))
        for index, pair in enumerate(pairs)
    ]
