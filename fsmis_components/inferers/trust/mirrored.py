"""Whether a scan looks more like the support when its slices are mirrored."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.mirrored import MIRRORS
from fsmis_components.support.scan_profile import ScanProfile, mirror_places
from fsmis_components.support.slice_descriptors import CELLS, descriptor_similarity
from fsmis_components.support.support_pack import SupportPack

# features of a mirrored image are not the mirrored features of the image, so a pack that has only
# these says less: its gain counts from here
_ROUGH = 0.03


def mirror_gain(
    descriptors: Tensor, slice_spacing: float, pack: SupportPack, match: VolumeMatch
) -> float:
    """How much more similar a query is to the support when one of them is mirrored.

    A header that swaps left and right, or anterior and posterior, leaves no other trace. The query
    is compared with some slices of a support scan as they are, and with these slices as the network
    saw them mirrored. Where the body is as good as symmetric both are alike and nothing is said.

    Args:
        descriptors: (D, F) of the query's slices.
        slice_spacing: millimetres between them.
        pack: the support; one without mirrored slices has its descriptors mirrored instead.
        match: of the slices as they are.

    Returns:
        Similarity of the best mirrored alignment less that of the plain one, with the most similar
        support scan of those that were mirrored; negative for a scan that lies as the support does.
    """
    known = [scan for scan, each in enumerate(pack.profiles) if each.mirrored is not None]
    scans = known or range(len(pack.profiles))
    best = max(scans, key=lambda scan: match.alignments[scan].similarity)
    profile = pack.profiles[best]
    places, seen = _views(profile)
    # of evenly spaced slices; a scan of one slice has no distance between them
    step = float(places[1] - places[0]) if len(places) > 1 else 1.0
    plain, *mirrored = (
        align(
            descriptor_similarity(descriptors, each.float()).numpy(),
            profile.slope_of(slice_spacing) / step,
        ).similarity
        for each in seen
    )
    return max(mirrored) - plain - (0.0 if known else _ROUGH)


def _views(profile: ScanProfile) -> tuple[np.ndarray, list[Tensor]]:
    """Slices of a support scan, and their descriptors as they are and mirrored."""
    if profile.mirrored is not None:
        places = mirror_places(profile.depth)
        return places, [profile.descriptors[places], *profile.mirrored]
    grids = profile.descriptors.unflatten(1, (-1, CELLS, CELLS))
    turned = [grids.flip([2 + axis for axis in axes]).flatten(1) for axes in MIRRORS]
    return np.arange(profile.depth), [profile.descriptors, *turned]
