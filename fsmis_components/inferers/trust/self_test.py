"""The support tests itself: parts of it are held out in turn and segmented by the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fsmis_components.inferers.trust.held_out_scans import only_scans, scan_dice
from fsmis_components.inferers.trust.held_out_slices import BlockCounts, held_out_slices
from fsmis_components.support.calibration import Calibration, StructureTest
from fsmis_components.support.encode import frozen
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportSet

_LEAST_BLOCKS = 2  # one slice, all that three labelled sections leave to test, says nothing
_UNTESTED = StructureTest(None, 0.0, 0, "nothing")


def self_test(
    network: nn.Module,
    support_set: SupportSet,
    pack: SupportPack,
    *,
    batch_size: int = 8,
    amp: bool = False,
    cache: FeatureCache | None = None,
) -> Calibration:
    """Find out how well each structure is segmented, without any further label.

    Each scan is held out and segmented by the others. A structure that only one scan shows is
    tested on blocks of its slices there.

    Args:
        network: the network that made the pack; left in the mode in which it came.
        support_set: the labelled scans, in the order of the pack.
        pack: of all of them.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.

    Cost: each scan is segmented once more, and encoded too where its features were not kept.
    """
    scans = range(len(support_set.scans))
    tests = [_UNTESTED] * len(pack.structures)
    with frozen(network), torch.inference_mode():
        if len(scans) > 1:
            dice = [
                scan_dice(
                    network,
                    support_set.scans[held_out],
                    only_scans(pack, [scan for scan in scans if scan != held_out]),
                    batch_size,
                    amp,
                    cache,
                )
                for held_out in scans
            ]
            tests = [_of_scans(column) for column in zip(*dice, strict=True)]
        for scan in scans:
            untested = [index for index, test in enumerate(tests) if test.mean is None]
            if not (set(untested) & set(_shown(pack, scan))):
                continue
            own = only_scans(pack, [scan])
            counts = held_out_slices(network, support_set.scans[scan], own, batch_size, amp, cache)
            for index in untested:
                tests[index] = _of_slices(counts, index)
    return Calibration(tuple(tests))


def _shown(pack: SupportPack, scan: int) -> list[int]:
    extents = pack.profiles[scan].extents
    return torch.nonzero(~extents.isnan().any(1)).flatten().tolist()


def _of_scans(dice: Sequence[float | None]) -> StructureTest:
    known = [each for each in dice if each is not None]
    if not known:
        return _UNTESTED
    return StructureTest(float(np.mean(known)), float(np.std(known)), len(known), "scans")


def _of_slices(counts: BlockCounts, index: int) -> StructureTest:
    both, either = counts.both[:, index].double(), counts.either[:, index].double()
    some = either > 0
    if int(some.sum()) < _LEAST_BLOCKS:
        return _UNTESTED
    # all blocks together: a block at the end of a structure has few voxels and little Dice
    dice = 2 * both[some] / either[some]
    mean = float(2 * both.sum() / either.sum())
    spread = float(((dice - mean).square() * either[some]).sum().div(either.sum()).sqrt())
    return StructureTest(mean, spread, int(some.sum()), "slices")
