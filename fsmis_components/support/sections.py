"""Which slices of the support stand for a structure: three sections along its extent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

NUM_SECTIONS = 3
# labelled slices of a structure that serve: thin slices are alike, and each costs time and memory
MOST_SLICES = 48


def section_slices(slices: Sequence[int]) -> tuple[int, int, int]:
    """The slices at 1/6, 1/2 and 5/6 of a structure's extent, of those that contain it, ascending.

    There is at least one of them; fewer than three are distinct where the structure is shorter.
    Source: SSL-ALPNet (ECCV 2020), released evaluation: indices floor(len * {1/6, 3/6, 5/6}).
    """
    lower, middle, upper = part_middles(len(slices), NUM_SECTIONS)
    return slices[lower], slices[middle], slices[upper]


def part_middles(length: int, parts: int) -> list[int]:
    """The middles of so many equal parts of a range, from 0; three lie at 1/6, 1/2 and 5/6."""
    return [length * (2 * part + 1) // (2 * parts) for part in range(parts)]


def plan_sections(
    slices: Sequence[Sequence[int]], every_slice: bool = False
) -> tuple[list[int], torch.Tensor]:
    """Sections of all structures of one scan, so that a shared slice is encoded once.

    `slices` are per structure those that contain it, ascending. With `every_slice` each of them
    serves, for the third in which it lies (at most `MOST_SLICES`, evenly spread); otherwise one per
    third.

    Returns the slices to encode, ascending (length S), and a boolean table (N, S, 3): is slice s
    section k of structure n. A structure of one or two slices uses one slice for several sections.
    """
    picked: set[tuple[int, int, int]] = set()  # structure, slice, section that it stands for
    for structure, each in enumerate(slices):
        middles = section_slices(each) if each else ()
        picked |= {(structure, index, section) for section, index in enumerate(middles)}
        if every_slice and each:
            count = min(len(each), MOST_SLICES)
            for at in np.linspace(0, len(each) - 1, count).round().astype(int):
                section = section_of_slice(each[at], each[0], each[-1])
                picked.add((structure, each[at], section))
    chosen = sorted({index for _, index, _ in picked})
    table = torch.zeros(len(slices), len(chosen), NUM_SECTIONS, dtype=torch.bool)
    for structure, index, section in picked:
        table[structure, chosen.index(index), section] = True
    return chosen, table


def section_of_slice(index: int, first: int, last: int) -> int:
    """The third of the extent first..last in which a slice lies: 0, 1 or 2.

    Slices outside the extent belong to the nearest third.

    Source: SSL-ALPNet (ECCV 2020), released evaluation: floor((z - first) / ((last - first) / 3)).
    """
    if last == first:
        return 0
    # integers: a float third would put the border slices of some extents on the wrong side
    return int(np.clip((index - first) * NUM_SECTIONS // (last - first), 0, NUM_SECTIONS - 1))
