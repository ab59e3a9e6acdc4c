"""Whether a scan looks more like the support when its slices are mirrored."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.slice_descriptors import CELLS, descriptor_similarity
from fsmis_components.support.support_pack import SupportPack

_MIRRORS = ((2,), (3,), (2, 3))  # rows, columns, both: a turn by 180 degrees


def mirror_gain(
    descriptors: Tensor, slice_spacing: float, pack: SupportPack, match: VolumeMatch
) -> float:
    """How much more similar a query is to the support when its slices are mirrored.

    A header that swaps left and right, or anterior and posterior, leaves no other trace. Features
    of a mirrored image are not those of the image, so this is a hint: in plane, descriptors keep
    where something lies, and that is what is mirrored.

    Args:
        descriptors: (D, F) of the query's slices.
        slice_spacing: millimetres between them.
        pack: the support.
        match: of the slices as they are.

    Returns:
        Similarity of the best mirrored alignment less that of the plain one, with the support scan
        that is most similar; negative for a scan that lies as the support does.
    """
    plain = [alignment.similarity for alignment in match.alignments]
    best = int(np.argmax(plain))
    profile = pack.profiles[best]
    ratio = profile.slope_of(slice_spacing)
    grids = descriptors.unflatten(1, (-1, CELLS, CELLS))
    mirrored = [
        align(
            descriptor_similarity(grids.flip(axes).flatten(1), profile.descriptors.float()).numpy(),
            ratio,
        ).similarity
        for axes in _MIRRORS
    ]
    return max(mirrored) - plain[best]
