"""Which scan to label next, and which of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsmis_components.data.cases import Case
from fsmis_components.data.volumes import load_image
from fsmis_components.inferers.suggest.likeness import (
    Likeness,
    by_gain,
    choose_scans,
    gains_of,
)
from fsmis_components.inferers.suggest.scan_look import ScanLook
from fsmis_components.inferers.suggest.slices import (
    SliceChoice,
    common_range,
    file_numbers,
    spread_slices,
    structure_slices,
)
from fsmis_components.support.support_pack import SupportPack


@dataclass(frozen=True)
class RankedScan:
    """A scan that may be labelled.

    Attributes:
        name: of the scan.
        image: its file or DICOM folder.
        place: index among the looks.
        similarity: mean similarity to the other scans.
        gain: by how much labelling it now raises the lower quartile of the similarities of the
            other scans to their support, see `gains_of`.
        depth: number of its slices.
        chosen: 1 for the scan to label first, 2 for the one to label after it; 0: not proposed.
        slices: what to label, for proposed scans.
        file_axis: "i", "j" or "k", the stored axis along which slices are counted; proposed scans.
        file_slices: the numbers from 0 along that axis, as `slices`.
    """

    name: str
    image: str
    place: int
    similarity: float
    gain: float
    depth: int
    chosen: int = 0
    slices: tuple[SliceChoice, ...] = ()
    file_axis: str = ""
    file_slices: tuple[SliceChoice, ...] = ()


def suggest(
    cases: Sequence[Case],
    looks: Sequence[ScanLook],
    likeness: Likeness,
    pack: SupportPack | None,
    num: int,
    num_slices: int,
) -> list[RankedScan]:
    """Rank the scans of a folder by what labelling them would bring.

    Args:
        cases: the scans of the folder that are not labelled.
        looks: theirs, and after them those of the support scans.
        likeness: of all looks.
        pack: the present support; None: nothing is labelled.
        num: how many scans to propose.
        num_slices: slices to label per structure.

    Returns:
        Proposed scans in order, then the others by falling gain.
    """
    count = len(cases)
    labelled = list(range(count, len(looks)))
    candidates = list(range(count))
    similarity = likeness.similarity
    table = gains_of(similarity, candidates, labelled)
    gains = dict(zip(candidates, table[:, 0], strict=True))
    chosen = choose_scans(similarity, candidates, labelled, num)
    rest = [place for place in by_gain(candidates, table) if place not in chosen]
    ranked = []
    for place in [*chosen, *rest]:
        others = np.delete(similarity[place], place)
        scan = RankedScan(
            cases[place].name,
            str(cases[place].image),
            place,
            float(others.mean()) if len(others) else 1.0,
            float(gains[place]),
            looks[place].depth,
        )
        if place in chosen:
            scan = _with_slices(scan, chosen.index(place) + 1, looks, likeness, pack, num_slices)
        ranked.append(scan)
    return ranked


def _with_slices(
    scan: RankedScan,
    order: int,
    looks: Sequence[ScanLook],
    likeness: Likeness,
    pack: SupportPack | None,
    num: int,
) -> RankedScan:
    """A scan that is proposed, with the slices to label."""
    look = looks[scan.place]
    choices = structure_slices(look, pack, num) if pack is not None else []
    if not choices:  # nothing is known of any structure
        shown = np.delete(likeness.shown[scan.place], scan.place, axis=0)
        first, last = common_range(shown, look.depth)
        choices = [SliceChoice("all structures", spread_slices(first, last, num))]
    volume = load_image(scan.image)
    in_file = [file_numbers(volume, look.grid, choice.slices) for choice in choices]
    return replace(
        scan,
        chosen=order,
        slices=tuple(choices),
        file_axis=in_file[0][1],
        file_slices=tuple(
            SliceChoice(choice.what, tuple(numbers))
            for choice, (numbers, _) in zip(choices, in_file, strict=True)
        ),
    )
