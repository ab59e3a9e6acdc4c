"""The support tests itself: parts of it are held out in turn and segmented by the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from torch import Tensor

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.encoding import ScanEncoder
from fsmis_components.inferers.encoded_slices import segment_slices
from fsmis_components.inferers.expected_shapes import PRIOR, blur_shapes, pad_slices, present_slices
from fsmis_components.inferers.matching import neighbours, neighbours_of
from fsmis_components.inferers.request_answer import known_slices
from fsmis_components.layers.support_state import select_sections
from fsmis_components.support import SupportPack, SupportScan, SupportSet
from fsmis_components.support.calibration import Calibration, StructureTest
from fsmis_components.support.encode import patient_of, structure_masks
from fsmis_components.support.scan_profile import shape_cell, shapes_and_extents

_BLOCKS = 6
_LEAST_BLOCKS = 2  # one slice, all that three labelled sections leave to test, says nothing
_BESIDE = 1  # slices beside a block that do not serve either: they show nearly the same
_UNTESTED = StructureTest(None, 0.0, 0, "nothing")


def self_test(
    encoder: ScanEncoder,
    support_set: SupportSet,
    pack: SupportPack,
    segment: Callable[[Volume, SupportPack], np.ndarray],
) -> Calibration:
    """Find out how well each structure is segmented, without any further label.

    Each scan is held out and segmented by the others: `segment` gives the label map of a scan by a
    pack. A structure that only one scan shows is tested on blocks of its slices there. The encoder
    is of the network that made the pack; the labelled scans come in the order of the pack.
    """
    scans = range(len(support_set.scans))
    tests = [_UNTESTED] * len(pack.structures)
    with eval_mode(encoder.network), torch.inference_mode():
        if len(scans) > 1:
            dice = []
            for held_out in scans:
                others = only_scans(pack, [scan for scan in scans if scan != held_out])
                dice.append(_scan_dice(segment, support_set.scans[held_out], others))
            tests = [_of_scans(column) for column in zip(*dice, strict=True)]
        for scan in scans:
            shown = ~pack.profiles[scan].extents.isnan().any(1)
            untested = [index for index, test in enumerate(tests) if test.mean is None]
            if not shown[untested].any():
                continue
            counts = _held_out_slices(encoder, support_set.scans[scan], only_scans(pack, [scan]))
            for index in untested:
                tests[index] = _of_slices(*counts[..., index].double())
    return Calibration(tuple(tests))


def only_scans(pack: SupportPack, scans: Sequence[int]) -> SupportPack:
    """The pack of some of its support scans, ascending; nothing is encoded again.

    Structures of which nothing is left have no valid support slice.
    """
    kept = torch.nonzero(torch.isin(pack.origins[:, 0], torch.tensor(scans))).flatten()
    origins = pack.origins[kept].clone()
    origins[:, 0] = torch.searchsorted(torch.tensor(scans), origins[:, 0].contiguous())
    return replace(
        pack,
        state=select_sections(pack.state, kept),
        sections=pack.sections[:, kept],
        origins=origins,
        profiles=tuple(pack.profiles[scan] for scan in scans),
    )


def _dice_of_known(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice of masks (D, h, w) over the slices whose truth is known; None without a label."""
    known = known_slices(np.asarray(truth.any((1, 2))))
    found, truth = found[known], truth[known]
    return 2 * int((found & truth).sum()) / int(found.sum() + truth.sum()) if truth.any() else None


def _scan_dice(
    segment: Callable[[Volume, SupportPack], np.ndarray], scan: SupportScan, others: SupportPack
) -> list[float | None]:
    """Dice of each structure of a scan by the others; None where it or they do not show it."""
    view = SliceView(scan.image, others.grid)
    found = view.stacked(segment(scan.image, others))
    truth = view.stacked(np.asarray(scan.label.data))
    shown = others.sections.flatten(1).any(1).tolist()
    return [
        _dice_of_known(found == structure.value, truth == structure.value) if served else None
        for structure, served in zip(others.structures, shown, strict=True)
    ]


def _of_scans(dice: Sequence[float | None]) -> StructureTest:
    known = [each for each in dice if each is not None]
    if not known:
        return _UNTESTED
    return StructureTest(float(np.mean(known)), float(np.std(known)), len(known), "scans")


def _of_slices(both: Tensor, either: Tensor) -> StructureTest:
    """The test by pixels in mask and label, and in the mask plus in the label, of each block."""
    some = either > 0
    if int(some.sum()) < _LEAST_BLOCKS:
        return _UNTESTED
    # all blocks together: a block at the end of a structure has few voxels and little Dice
    dice = 2 * both[some] / either[some]
    mean = float(2 * both.sum() / either.sum())
    spread = float(((dice - mean).square() * either[some]).sum().div(either.sum()).sqrt())
    return StructureTest(mean, spread, int(some.sum()), "slices")


class _Plan(NamedTuple):
    """What answers for which slice of the scan."""

    block: Tensor  # int64 (D,), the block of each slice; -1: not tested
    known: Tensor  # bool (D, N), where the truth counts
    weights: Tensor  # (D, N, S) section weights
    present: Tensor  # bool (D, N), where the slices that are left say that a structure is


def _held_out_slices(encoder: ScanEncoder, scan: SupportScan, pack: SupportPack) -> Tensor:
    """Segment each block of labelled slices by the other labelled slices of the same scan.

    Every slice is segmented once; what differs between blocks is who answers. Where a structure
    begins and ends is taken from the slices that are left. Its place in plane is not: in its own
    scan it would be known better than it ever is in another. No block where fewer than three slices
    are labelled. Returns the pixels of `_of_slices` per block and structure, int64 (2, blocks, N).
    """
    scan = patient_of(scan, pack.grid)
    values = [structure.value for structure in pack.structures]
    masks = structure_masks(SliceView(scan.label, pack.grid), values)
    plan = _plan(masks, pack)
    blocks = int(plan.block.max()) + 1
    counts = torch.zeros(2, blocks, len(values), dtype=torch.int64)
    numbers = torch.arange(1, len(values) + 1)[:, None, None]
    encoded = encoder.scan(SliceView(scan.image, pack.grid), pack.normalisation)
    for slices in encoded if blocks else ():
        part = slice(slices.start, slices.stop)
        margins = segment_slices(encoder, slices, pack.state, plan.weights)[:, 1:].cpu()
        margins = margins.masked_fill(~plan.present[part][..., None, None], -torch.inf)
        # the margin of the background is zero
        found = F.pad(margins, (0, 0, 0, 0, 1, 0)).argmax(1, keepdim=True) == numbers
        truth, block = masks[part], plan.block[part]
        both = (found & truth).sum((2, 3))
        either = found.sum((2, 3)) + truth.sum((2, 3))
        pixels = torch.stack([both, either]) * plan.known[part]
        counts.index_add_(1, block[block >= 0], pixels[:, block >= 0])
    return counts


def _plan(masks: Tensor, pack: SupportPack) -> _Plan:
    labelled = masks.flatten(2).any(-1)  # (D, N)
    cell = shape_cell(pack.grid)
    block = torch.full((len(masks),), -1)
    weights = torch.zeros(len(masks), *pack.sections.shape[:2])
    present = torch.zeros_like(labelled)
    known = np.stack([_testable(column) for column in labelled.T.numpy()], 1)
    places, valid = pack.origins[:, 1].numpy(), pack.sections.any(-1).numpy()
    tested = torch.nonzero(labelled.any(1)).flatten().numpy()
    parts = np.array_split(tested, min(_BLOCKS, len(tested))) if len(tested) >= 3 else []
    most = neighbours_of(pack.profiles[0].slice_spacing)
    for number, part in enumerate(parts):
        first, last = int(part[0]), int(part[-1])
        near = (places >= first - _BESIDE) & (places <= last + _BESIDE)
        left = labelled.clone()
        left[max(first - _BESIDE, 0) : last + _BESIDE + 1] = False
        serving = np.flatnonzero(~near)
        slices = np.arange(first, last + 1)
        block[first : last + 1] = number
        answering = neighbours(slices.astype(float), places[serving], valid[:, serving], most)
        weights[first : last + 1, :, serving] = torch.from_numpy(answering).float()
        shapes, _ = shapes_and_extents(masks & left[..., None, None], left, cell)
        blurred = torch.from_numpy(blur_shapes(shapes, PRIOR.blur, PRIOR.blur_slices))
        # the scan is its own query, so its slices lie where they are
        in_block = blurred[pad_slices(PRIOR.blur_slices) :][first : last + 1]
        present[first : last + 1] = present_slices(in_block)
    return _Plan(block, torch.from_numpy(known), weights, present)


def _testable(labelled: np.ndarray) -> np.ndarray:
    """Known slices; of a structure with gaps not the outermost, beyond which nothing is left."""
    known = known_slices(labelled)
    places = np.flatnonzero(known)
    if len(places) and not known.all():
        known[places[[0, -1]]] = False
    return known
