"""Self-test with one support scan: blocks of its labelled slices are held out in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.inferers.matching import neighbours, neighbours_of
from fsmis_components.inferers.shape_prior import (
    PriorRule,
    blurred_shapes,
    pad_slices,
    present_slices,
)
from fsmis_components.inferers.slabs import Slab, encode_slabs, segment_slab
from fsmis_components.inferers.trust.known_slices import known_slices
from fsmis_components.support.encode import structure_slices
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.scan_profile import profile_scan, shape_cell
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportScan

_BLOCKS = 6
_BESIDE = 1  # slices beside a block that do not serve either: they show nearly the same


@dataclass(frozen=True)
class BlockCounts:
    """Pixels at the working resolution per block and structure, int64 (blocks, N).

    Attributes:
        both: in mask and label.
        either: in the mask plus in the label.
    """

    both: Tensor
    either: Tensor


@dataclass(frozen=True)
class _Plan:
    """What answers for which slice of the scan.

    Attributes:
        block: int64 (D,), the block of each slice; -1: not tested.
        known: bool (D, N), where the truth counts.
        weights: (D, N, S) section weights.
        present: bool (D, N), where the slices that are left say that a structure is.
    """

    block: Tensor
    known: Tensor
    weights: Tensor
    present: Tensor


def held_out_slices(
    network: nn.Module,
    scan: SupportScan,
    pack: SupportPack,
    batch_size: int,
    amp: bool,
    cache: FeatureCache | None,
) -> BlockCounts:
    """Segment each block of labelled slices by the other labelled slices of the same scan.

    Every slice is segmented once; what differs between blocks is who answers. Where a structure
    begins and ends is taken from the slices that are left. Its place in plane is not: in its own
    scan it would be known better than it ever is in another.

    Args:
        network: in evaluation mode.
        scan: with its label.
        pack: of this scan alone.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.

    Returns:
        Counts of the blocks; no block where fewer than three slices are labelled.
    """
    view = SliceView(scan.image, pack.grid)
    values = [structure.value for structure in pack.structures]
    _, masks = structure_slices(SliceView(scan.label, pack.grid), values)
    plan = _plan(masks, pack)
    blocks = int(plan.block.max()) + 1
    counts = BlockCounts(*(torch.zeros(blocks, len(values), dtype=torch.int64) for _ in range(2)))
    encoded = encode_slabs(
        network, scan.image, view, pack, batch_size=batch_size, amp=amp, cache=cache
    )
    for slab in encoded if blocks else ():
        logits = segment_slab(network, slab, pack.state, plan.weights, amp=amp)
        _count(slab, logits[:, 1:].cpu(), masks, plan, counts)
    return counts


def _plan(masks: Tensor, pack: SupportPack) -> _Plan:
    labelled = masks.flatten(2).any(-1)  # (D, N)
    rule, cell = PriorRule(), shape_cell(pack.grid)
    block = torch.full((len(masks),), -1)
    weights = torch.zeros(len(masks), *pack.sections.shape[:2])
    present = torch.zeros_like(labelled)
    known = np.stack([_testable(column) for column in labelled.T.numpy()], 1)
    places, valid = pack.origins[:, 1].numpy(), pack.sections.any(-1).numpy()
    tested = torch.nonzero(labelled.any(1)).flatten().numpy()
    parts = np.array_split(tested, min(_BLOCKS, len(tested))) if len(tested) >= 3 else []
    for number, own in enumerate(parts):
        first, last = int(own[0]), int(own[-1])
        near = (places >= first - _BESIDE) & (places <= last + _BESIDE)
        left = labelled.clone()
        left[max(first - _BESIDE, 0) : last + _BESIDE + 1] = False
        serving = np.flatnonzero(~near)
        slices = np.arange(first, last + 1)
        block[first : last + 1] = number
        most = neighbours_of(pack.profiles[0].slice_spacing)
        answering = neighbours(slices.astype(float), places[serving], valid[:, serving], most)
        weights[first : last + 1, :, serving] = torch.from_numpy(answering).float()
        profile = profile_scan(
            "", None, pack.profiles[0].descriptors, masks & left[..., None, None], left, cell
        )
        shapes = torch.from_numpy(blurred_shapes(profile, rule.blur, rule.blur_slices))
        # the scan is its own query, so its slices lie where they are
        own_shapes = shapes[pad_slices(rule.blur_slices) :][first : last + 1]
        present[first : last + 1] = present_slices(own_shapes)
    return _Plan(block, torch.from_numpy(known), weights, present)


def _testable(labelled: np.ndarray) -> np.ndarray:
    """Known slices; of a structure with gaps not the outermost, beyond which nothing is left."""
    known = known_slices(labelled)
    places = np.flatnonzero(known)
    if len(places) and not known.all():
        known[places[[0, -1]]] = False
    return known


def _count(slab: Slab, margins: Tensor, masks: Tensor, plan: _Plan, counts: BlockCounts) -> None:
    own = slice(slab.start, slab.stop)
    margins = margins.masked_fill(~plan.present[own][..., None, None], -torch.inf)
    winner = torch.cat([torch.zeros_like(margins[:, :1]), margins], 1).argmax(1, keepdim=True)
    found = winner == torch.arange(1, margins.shape[1] + 1)[:, None, None]
    truth, known = masks[own], plan.known[own]
    for index, number in enumerate(plan.block[own].tolist()):
        if number >= 0:
            both = (found[index] & truth[index]).sum((1, 2))
            either = found[index].sum((1, 2)) + truth[index].sum((1, 2))
            counts.both[number] += both * known[index]
            counts.either[number] += either * known[index]
