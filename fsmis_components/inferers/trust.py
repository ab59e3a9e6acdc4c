"""How far the result of one scan can be trusted; no label of the scan takes part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.data.geometry import TILTED, SliceView, candidate_orders
from fsmis_components.data.intensity import intensity_warning, modality_of
from fsmis_components.data.nifti import is_identity, sample
from fsmis_components.data.storage_order import StorageOrder
from fsmis_components.encoding.slice_descriptors import CELLS, layout_similarity
from fsmis_components.inferers.expected_shapes import largest_channel, to_cells
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.slice_order import turns_of
from fsmis_components.inferers.z_alignment import align
from fsmis_components.support.encode import MIRRORS
from fsmis_components.support.scan_profile import mirror_places
from fsmis_components.support.support_pack import SupportPack

_LARGEST_RATIO = 2.0  # of the extents of slices; scans of one kind differ by less
# along the best line through z: of scans of other kinds half lie below, but some of the same kind
# too, whose masks are good
_LEAST_SIMILARITY = 0.15
# mean expected Dice: scans of other kinds reach 0.35 (CT by a support of MR 0.6), those of the same
# kind start at 0.49 (13 organs of CT), save one heart of 18 at 0.34
_LEAST_EXPECTED = 0.4
_UNLIKE_EXPECTED = 0.6  # below which a scan of little similarity is doubtful
_LAYOUT = 8.0  # weight of where things lie in the mean slice, against what changes along z
_MIRROR_GAIN = 0.02  # no whole scan that lies as the support does has more, of parts one in thirty
_AGAINST = 0.04  # the line through z may lose half of it where the mean slice gains
# features of a mirrored image are not the mirrored features of the image, so a pack that has only
# these says less: its gain counts from here
_ROUGH = 0.03
_NOTHING = 1e-6
# Dice = offset + slope * the geometric mean of certainty and agreement, less where query and
# registered support hardly look alike: fitted on hearts, CHAOS-T2, CT and hippocampus, in part by
# weights that had not seen the set, and on scans of another part of the body
_OFFSET, _SLOPE = -0.11, 1.04
# likeness up to which nothing is expected, and from which on nothing is taken off: scans of another
# part of the body have 0.1 to 0.36, those of the same kind 0.46 (hearts) to 0.6 on average
_UNLIKE, _ALIKE = 0.25, 0.4
# where shapes were moved in place of a registration: fitted on ACDC alone
_OFFSET_OF_MOVES, _SLOPE_OF_MOVES = -0.47, 1.48


class TrustMeter:
    """Sums over the slabs of a scan, from which the expected Dice of each structure follows.

    A cell of the shapes has `cell` working pixels along its side.
    """

    def __init__(self, num_structures: int, cell: int) -> None:
        self.cell = cell
        self._sums = torch.zeros(num_structures, 6, dtype=torch.float64)  # see `add`

    def add(self, margins: Tensor, fitted: Tensor) -> None:
        """Take in some slices; each slice of a scan once.

        Args:
            margins: (n, N, H, W) at the working resolution as they decide, prior included.
            fitted: (n, N, h, w) the support's shapes at their place in the query, on their cells,
                in [0, 1].
        """
        # every second row and column is enough for sums over a structure, at a quarter of the cost
        stride = 2 if self.cell % 2 == 0 else 1
        logits = F.pad(margins[..., ::stride, ::stride], (0, 0, 0, 0, 1, 0))  # the background's 0
        numbers = torch.arange(1, logits.shape[1])[:, None, None]
        masks = (largest_channel(logits).unsqueeze(1) == numbers).float()
        cells = to_cells(masks, self.cell // stride)
        probabilities = logits.softmax(1)[:, 1:]
        parts = [probabilities * masks, probabilities, masks]
        parts += [cells * fitted, cells.square(), fitted.square()]
        # slices in float32, the volume in float64: a structure may have 10^8 voxels
        self._sums += torch.stack([part.sum((2, 3)).double().sum(0) for part in parts], 1)

    def expected_dice(self, likeness: float) -> tuple[float, ...]:
        """The Dice that each structure is expected to have, in [0, 1]; 0 where nothing was found.

        Certainty is the Dice of the mask with its own probabilities: a mask that only follows the
        expected shape has little. Agreement is the cosine of the mask with the support's shape
        where it was expected: a confident mask in the wrong place has little. `likeness` is that of
        `Expected`: where query and support still do not look alike, shapes lie in the wrong place.
        """
        alike = float(np.interp(likeness, (_UNLIKE, _ALIKE), (0.0, 1.0)))
        offset, slope = alike * _OFFSET, alike * _SLOPE
        if np.isnan(likeness):
            offset, slope = _OFFSET_OF_MOVES, _SLOPE_OF_MOVES
        expected = []
        for both, whole, pixels, overlap, mask, shape in self._sums.tolist():
            certainty = 2 * both / max(whole + pixels, _NOTHING)
            agreement = overlap / max((mask * shape) ** 0.5, _NOTHING)
            measure = (certainty * agreement) ** 0.5
            expected.append(min(max(offset + slope * measure, 0.0), 1.0))
        return tuple(expected)


def out_of_support(
    expected: tuple[float, ...],
    match: VolumeMatch,
    view: SliceView,
    pack: SupportPack,
    mirrored: float,
) -> str:
    """A sentence where a scan seems of another body part, kind or orientation; or nothing.

    Some scans have little similarity even to their own kind, so that alone is no reason for a
    warning: what was found, by its expected Dice, must be doubtful too. `mirrored` is the
    `mirror_gain`.
    """
    best = max(match.alignments, key=lambda alignment: alignment.similarity)
    dice = sum(expected) / len(expected)
    extent_ratio = max(view.working_size) / view.grid.spatial_size
    if not 1 / _LARGEST_RATIO <= extent_ratio <= _LARGEST_RATIO:
        return (
            f"The slices are {extent_ratio:.2g} times as large as the support's: another body "
            "part, or a wrong spacing in a header; check the mask."
        )
    if pack.profiles[0].oriented and view.tilt > TILTED:
        return (
            f"The slices are tilted by {view.tilt:.0f} degrees against the support's, so they show "
            "other sections of the body; check the mask, or label a scan that was cut alike."
        )
    if view.depth == 1:  # any direction through z fits it
        return (
            "The scan has one slice only, so nothing beside it tells where in the support it lies; "
            "give the whole volume, or check the mask."
        )
    if best.similarity < _LEAST_SIMILARITY and dice < _UNLIKE_EXPECTED:
        return (
            f"The scan does not look like the support (similarity {best.similarity:.2f}, expected "
            f"Dice {100 * dice:.0f}): another body part, contrast or orientation; "
            "check the mask."
        )
    # such a mask may be expected to be good, because a body is nearly its own mirror image
    if mirrored > _MIRROR_GAIN:
        return (
            "The slices look more like the support's when they are mirrored: the orientation in a "
            "header may be wrong, here or there; check the mask, and its left and right."
        )
    if best.slope < 0:
        return (
            "The slices run against the support's: the orientation in a header is wrong, here or "
            "there; check that left and right of the mask are right."
        )
    if dice < _LEAST_EXPECTED:
        return (
            f"The support fits this scan badly (expected Dice {100 * dice:.0f}): "
            "another body part or contrast, or a scan that needs a label of its own; check the "
            "mask."
        )
    return ""


@dataclass(frozen=True)
class CaseTrust:
    """What is expected of a result."""

    expected_dice: tuple[float, ...]  # per structure, in [0, 1]
    warning: str  # one sentence where the scan is unlike the support; empty otherwise

    @property
    def is_usable(self) -> bool:
        """Whether as much is expected as of scans of the support's kind."""
        return float(np.mean(self.expected_dice)) >= _LEAST_EXPECTED


def mirror_gain(
    descriptors: Tensor, slice_spacing: float, pack: SupportPack, match: VolumeMatch
) -> float:
    """How much more similar a query is to the support when one of them is mirrored.

    A header that swaps left and right, or anterior and posterior, leaves no other trace. The
    query's descriptors (D, F) are compared with some slices of the most similar support scan, and
    with these as the network saw them mirrored: along the best line through z, and by what lies
    where in their mean. Of packs without these, mirrored descriptors are compared along z only. The
    result is negative for a scan that lies as the support does.
    """
    known = [scan for scan, each in enumerate(pack.profiles) if each.mirrored is not None]
    scans = known or range(len(pack.profiles))
    best = max(scans, key=lambda scan: match.alignments[scan].similarity)
    profile, step = pack.profiles[best], 1.0
    if profile.mirrored is None:
        grids = profile.descriptors.unflatten(1, (-1, CELLS, CELLS))
        turned = [grids.flip([2 + axis for axis in axes]).flatten(1) for axes in MIRRORS]
        seen = [profile.descriptors, *turned]
    else:
        places = mirror_places(profile.depth)  # evenly spaced
        step = float(places[1] - places[0]) if len(places) > 1 else 1.0
        seen = [profile.descriptors[places], *profile.mirrored]
    slope = profile.slope_of(slice_spacing) / step
    plain, *mirrored = (align(descriptors, each, slope).similarity for each in seen)
    gains = np.array(mirrored) - plain
    if not known:
        return float(gains.max()) - _ROUGH
    lies, *others = (layout_similarity(descriptors, each.float()) for each in seen)
    # both must speak: generated bodies were told mirrored by what lies where alone
    both = gains + _LAYOUT * (np.array(others) - lies)
    return float(np.minimum(both, gains + _AGAINST).max())


@dataclass(frozen=True)
class ScanCheck:
    """What is known of a scan without the network."""

    # as what its intensities were taken: "mr", "ct", or "ct, stored with an offset of 1024"
    modality: str
    warnings: tuple[str, ...]  # one sentence for each thing that is doubtful


def check_scan(view: SliceView, pack: SupportPack) -> ScanCheck:
    """Compare header and intensities of a scan with what the support needs."""
    volume = view.volume
    seen = modality_of(volume)
    modality = pack.normalisation.modality
    warning = intensity_warning(seen, pack.normalisation)
    values = sample(volume.data)
    if values.min() == values.max():
        warning = f"The scan shows nothing: its voxels hold {values[0]:g}; check the file."
    if modality == seen.name == "ct" and seen.offset:
        modality = f"ct, stored with an offset of {seen.offset:g}"
    return ScanCheck(modality, tuple(filter(None, (warning, _order_warning(view, pack)))))


def told_order(view: SliceView, said: str) -> StorageOrder:
    """The order in which a scan was read, by the warnings that its inference gave.

    Where they tell of no order, it was that of the view.
    """
    return next((each for each in turns_of(view.order) if _in_words(each) in said), view.order)


def _order_warning(view: SliceView, pack: SupportPack) -> str:
    """What headers leave open, and how the scan was read for that."""
    volume, read = view.volume, ""
    if view.is_reordered:
        read = f"; it was read {_in_words(view.order)}, because so it looks most like the support"
    unknown = [f"support scan {each.name}" for each in pack.profiles if not each.oriented]
    if not volume.oriented or unknown:
        whose = unknown[0] if volume.oriented else "the scan"
        return (
            f"The header of {whose} says nothing of its orientation (qform and sform codes are 0), "
            f"so left and right may be swapped{read}; export it again with its orientation, or "
            "check left and right of the mask."
        )
    if read and is_identity(volume.affine):
        return (
            "The affine of the scan is an identity, as tools write it that know nothing of the "
            f"orientation{read}; export it again with its orientation, or check left and right of "
            "the mask."
        )
    if read and view.order in candidate_orders(volume, view.grid):
        return (
            f"By its header the scan lies about halfway between two orders{read}; check the mask."
        )
    if read:
        return (
            f"The scan does not look like the support as its header says that it lies{read}: the "
            "orientation in a header is wrong, here or there; check left and right of the mask."
        )
    return ""


def _in_words(order: StorageOrder) -> str:
    slices, rows, columns = (
        f"the {('first', 'second', 'third')[axis]}{' (backwards)' if back else ''}"
        for axis, back in zip(order.axes, order.backwards, strict=True)
    )
    return f"with slices along {slices}, rows along {rows}, columns along {columns} stored axis"
