"""Self-test with several support scans: each is segmented blind by the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.trust.known_slices import known_slices
from fsmis_components.inferers.volume_inferer import VolumeInferer
from fsmis_components.layers.support_state import select_sections
from fsmis_components.support.feature_cache import FeatureCache
from fsmis_components.support.support_pack import SupportPack
from fsmis_components.support.support_set import SupportScan


def only_scans(pack: SupportPack, scans: Sequence[int]) -> SupportPack:
    """The pack of some of its support scans; nothing is encoded again.

    Args:
        pack: of all scans.
        scans: which to keep, ascending.

    Returns:
        The pack; structures of which nothing is left have no valid support slice.
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


def scan_dice(
    network: nn.Module,
    scan: SupportScan,
    others: SupportPack,
    batch_size: int,
    amp: bool,
    cache: FeatureCache | None,
) -> list[float | None]:
    """Segment a support scan by the others.

    Args:
        network: in evaluation mode.
        scan: with its label.
        others: pack of the other scans.
        batch_size: slices per forward pass.
        amp: bfloat16 autocast.
        cache: where features of scans are kept; None: nowhere.

    Returns:
        Dice of each structure; None where the scan or the others do not show it.
    """
    inferer = VolumeInferer(others, batch_size, amp, cache=cache)
    result = inferer.segment_volume(scan.image, network)
    predicted = SliceView(Volume(result.label, scan.image.affine, None), others.grid)
    found, truth = predicted.native_labels(), SliceView(scan.label, others.grid).native_labels()
    shown = others.sections.flatten(1).any(1)
    return [
        dice_of_known(found == structure.value, truth == structure.value) if own else None
        for structure, own in zip(others.structures, shown.tolist(), strict=True)
    ]


def dice_of_known(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice of masks (D, h, w) over the slices whose truth is known; None without a label."""
    known = known_slices(np.asarray(truth.any((1, 2))))
    total = int(found[known].sum()) + int(truth[known].sum())
    if not truth[known].any():
        return None
    return 2 * int((found & truth)[known].sum()) / total
