"""Where structures are to be expected: the support's shapes, mapped to the query and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fsmis_components.data.geometry import SliceView, centre_fit
from fsmis_components.inferers.clean_up import Topology, topology_of
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.registration import (
    correlation,
    register,
    stride_through,
    warp_shapes,
)
from fsmis_components.inferers.z_alignment import Alignment
from fsmis_components.support.scan_profile import ScanProfile, shape_cell
from fsmis_components.support.self_similarity import self_similarity
from fsmis_components.support.support_pack import SupportPack

# what is moved to fit is sharper than what is expected in the end
_FITTED_BLUR, _FITTED_BLUR_SLICES = 1.0, 0.5
_FAINT = 0.02  # a share below which a structure is not looked for
_TALLEST = 128  # slices of the grid on which shapes are moved; taller stacks are thinned


@dataclass(frozen=True)
class PriorRule:
    """How strongly and how sharply the support's shapes count.

    Lengths in plane are cells, a 64th of a slice's larger side. The defaults were chosen on
    CHAOS-T2, ACDC and hippocampus together, likeness and its shares on CHAOS-T2, ACDC and CT.
    """

    weight: float = 0.9  # of the `log_ratio`, beside margins of a scale of 20
    blur: float = 3.0  # standard deviation in plane, in cells
    blur_slices: float = 1.0  # standard deviation along z, in support slices
    # likeness of a registration from which on shapes are blurred less, and up to which; the shares
    # of both blurs that are left there
    poor_likeness: float = 0.45
    good_likeness: float = 0.56
    poor_share: float = 0.6
    good_share: float = 0.3
    reach: int = 10  # largest move in plane, in cells
    reach_slices: float = 1 / 6  # largest move along z, as a share of the support's depth
    move_std: float = 5.0  # standard deviation of a move in plane, in cells
    # standard deviation of a move along z, as a share of the support's depth
    move_std_slices: float = 1 / 7
    gain: float = 20.0  # weight of the network's evidence when shapes are moved
    certain: float = 4.0  # margin at which evidence counts in full

    def slices(self, depth: int) -> int:
        """The largest move along z of a support of so many slices."""
        return max(1, round(depth * self.reach_slices))

    def registered_share(self, likeness: float) -> float:
        """The share of both blurs that is left to shapes of a registration."""
        ends = (self.poor_likeness, self.good_likeness), (self.poor_share, self.good_share)
        return float(np.interp(likeness, *ends))


PRIOR = PriorRule()


class Appearance(NamedTuple):
    """What support scans are registered with."""

    self_similarity: Tensor  # uint8 (D, 12, h, w) of the query
    through: int  # query slices that are as far apart as two cells, see `stride_through`


def appearance_of(view: SliceView, pack: SupportPack) -> Appearance | None:
    """The appearance of a query; None: no scan of the support can be registered."""
    if all(profile.self_similarity is None for profile in pack.profiles):
        return None
    cell = shape_cell(pack.grid)
    through, pixel = view.working_spacing
    described = self_similarity(view, pack.normalisation, cell)
    return Appearance(described, stride_through(through, cell * pixel))


class Expected(NamedTuple):
    """Shares of the cells of a query that each structure is expected to fill, (D, N, h, w)."""

    shares: Tensor  # blurred, where it may lie
    fitted: Tensor  # hardly blurred, where the shape was moved to
    # how alike query and support are, once the support is bent; NaN: shapes were moved
    likeness: float = float("nan")


def pack_topologies(pack: SupportPack) -> list[Topology]:
    """The topology of each structure of a pack, of the scan in which it has the most parts."""
    result = []
    for index in range(len(pack.structures)):
        found = [
            topology_of(profile.shapes[index].numpy().astype(np.float32) / 255)
            for profile in pack.profiles
            if not profile.extents[index].isnan().any()
        ]
        parts = max((each.parts for each in found), default=1)
        result.append(Topology(parts, all(each.solid for each in found)))
    return result


class ExpectedShapes:
    """The shapes of a support pack, blurred once for all queries."""

    def __init__(self, pack: SupportPack) -> None:
        self.pack = pack

    @cached_property
    def _wide(self) -> list[np.ndarray]:
        """Shapes to be moved; a scan that is registered needs none."""
        return [
            blur_shapes(each.shapes, PRIOR.blur, PRIOR.blur_slices) for each in self.pack.profiles
        ]

    @cached_property
    def _sharp(self) -> list[np.ndarray]:
        return [
            blur_shapes(each.shapes, _FITTED_BLUR, _FITTED_BLUR_SLICES)
            for each in self.pack.profiles
        ]

    @cached_property
    def topologies(self) -> list[Topology]:
        """See `pack_topologies`."""
        return pack_topologies(self.pack)

    def of(
        self,
        match: VolumeMatch,
        evidence: Tensor | None,
        size: tuple[int, int],
        appearance: Appearance | None = None,
    ) -> Expected:
        """What is expected in a query that lies as `match` says, on cells of `size`.

        Each shape is moved to the evidence, margins (D, N, h, w) on the grid of the shapes; None:
        it stays where it is. With the query's appearance support scans are registered in place of
        moves, where theirs is known.
        """
        lead = None if evidence is None else lead_over_rivals(evidence)
        shape = (len(match.section_weights), len(self.pack.structures), *size)
        shares, fitted, total = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape[1])
        likeness = 0.0
        for scan, profile in enumerate(self.pack.profiles):
            share = float(match.shares[scan])
            if not share:
                continue
            labelled = ~profile.extents.isnan().any(1)
            if appearance is not None and profile.self_similarity is not None:
                of_scan = self._register(profile, match.alignments[scan], appearance, size)
            else:
                of_scan = self._of_scan(scan, match.alignments[scan], lead, labelled, size)
            shares += share * labelled[:, None, None] * of_scan.shares
            fitted += share * labelled[:, None, None] * of_scan.fitted
            total += share * labelled
            likeness += share * of_scan.likeness
        total = total.clamp_min(1e-6)[:, None, None]
        return Expected(shares / total, fitted / total, likeness)

    def _of_scan(
        self,
        scan: int,
        alignment: Alignment,
        lead: Tensor | None,
        labelled: Tensor,
        size: tuple[int, int],
    ) -> Expected:
        places = alignment.positions
        shares = map_shapes(self._wide[scan], places, pad_slices(PRIOR.blur_slices), size)
        fitted = map_shapes(self._sharp[scan], places, pad_slices(_FITTED_BLUR_SLICES), size)
        if lead is None:
            return Expected(shares, fitted)
        depth = self.pack.profiles[scan].depth
        for index in torch.nonzero(labelled).flatten().tolist():
            move = best_move(lead[:, index], fitted[:, index], depth, alignment.slope)
            shares[:, index] = move_shape(shares[:, index], move)
            fitted[:, index] = move_shape(fitted[:, index], move)
        return Expected(shares, fitted)

    def _register(
        self,
        profile: ScanProfile,
        alignment: Alignment,
        appearance: Appearance,
        size: tuple[int, int],
    ) -> Expected:
        places, slope = alignment.positions, abs(alignment.slope)
        described = profile.self_similarity.numpy().astype(np.float32)  # type: ignore[union-attr]
        # beyond the ends the last slice goes on, but counts for nothing
        support = map_shapes(described, np.clip(places, 0, profile.depth - 1), 0, size)
        known = np.pad(np.ones_like(described[:, :1]), ((1, 1), (0, 0), (0, 0), (0, 0)))
        shapes = profile.shapes.transpose(0, 1).numpy().astype(np.float32) / 255
        padded = np.pad(shapes, ((1, 1), (0, 0), (0, 0), (0, 0)), mode="edge")
        # behind the ends there is nothing, or what was cut off goes on: as likely as not
        padded[[0, -1]] = np.minimum(
            padded[[0, -1]], 0.5 * profile.open_ends.T.numpy()[..., None, None]
        )
        mapped = map_shapes(padded, places, 1, size)
        registration = register(
            appearance.self_similarity,
            support,
            map_shapes(known, places, 1, size)[:, 0],
            mapped.amax(1),
            appearance.through,
            round(PRIOR.slices(profile.depth) / slope),
        )
        bent = warp_shapes(mapped, registration.field).numpy()
        share = PRIOR.registered_share(registration.likeness)
        shares = blur_each(bent, share * PRIOR.blur, share * PRIOR.blur_slices / slope)
        fitted = blur_each(bent, _FITTED_BLUR, _FITTED_BLUR_SLICES / slope)
        return Expected(torch.from_numpy(shares), torch.from_numpy(fitted), registration.likeness)


def blur_shapes(shapes: Tensor, blur: float, blur_slices: float) -> np.ndarray:
    """Shapes of a `ScanProfile`, float32 (Z + 2 p, N, h, w), with p = `pad_slices` empty slices."""
    pad = pad_slices(blur_slices)
    padded = np.pad(shapes.numpy().astype(np.float32) / 255, ((0, 0), (pad, pad), (0, 0), (0, 0)))
    return blur_each(padded.swapaxes(0, 1), blur, blur_slices)


def blur_each(shapes: np.ndarray, blur: float, blur_slices: float) -> np.ndarray:
    """Shapes (Z, N, h, w) blurred by standard deviations in cells and in slices."""
    sigma = (blur_slices, 0, blur, blur)
    return gaussian_filter(shapes, sigma, mode="constant", truncate=3.0)


def pad_slices(blur_slices: float) -> int:
    """Slices into which a blur along z reaches."""
    return int(np.ceil(3 * blur_slices)) + 1


def map_shapes(
    shapes: np.ndarray, positions: np.ndarray, pad: int, size: tuple[int, int]
) -> Tensor:
    """Support shapes (Z + 2 pad, N, h, w) of `blur_shapes` at the places (D,) of query slices.

    Returns float32 (D, N, *size), the centres of both slices upon each other; nothing outside the
    support scan.
    """
    places = np.clip(positions + pad, 0, len(shapes) - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, len(shapes) - 1)
    share = torch.from_numpy((places - lower).astype(np.float32))[:, None, None, None]
    stack = centre_fit(torch.from_numpy(shapes), size)
    return stack[lower] * (1 - share) + stack[upper] * share


def best_move(evidence: Tensor, shape: Tensor, depth: int, slope: float) -> tuple[int, ...]:
    """Slices, rows and columns of the query by which the network's evidence wants a shape moved.

    All moves are scored at once: the correlation of evidence, margins (D, h, w) of one structure,
    and shape, (D, h, w) in [0, 1], less a parabola. The support scan has `depth` slices, `slope` of
    them per query slice.
    """
    total = float(shape.sum())
    if total <= 0:
        return 0, 0, 0
    thin = max(1, -(-len(shape) // _TALLEST))
    # per query slice a support slice may be more or less than one
    reach_z = max(1, round(PRIOR.slices(depth) / abs(slope) / thin))
    std_z = max(PRIOR.move_std_slices * depth / abs(slope) / thin, 1e-3)
    seen = (evidence.clamp(-PRIOR.certain, PRIOR.certain) / PRIOR.certain)[::thin]
    reach = [
        min(far, length - 1)
        for far, length in zip((reach_z, PRIOR.reach, PRIOR.reach), seen.shape, strict=True)
    ]
    agreement = correlation(seen[None], shape[None, ::thin], reach)
    score = PRIOR.gain * thin / total * agreement
    for axis, std in enumerate((std_z, PRIOR.move_std, PRIOR.move_std)):
        moves = torch.arange(-reach[axis], reach[axis] + 1, dtype=torch.float32)
        cost = (moves / std).square().div(2)
        score = score - cost.reshape([-1 if each == axis else 1 for each in range(3)])
    index = np.unravel_index(int(score.argmax()), score.shape)
    move = [int(place) - far for place, far in zip(index, reach, strict=True)]
    return move[0] * thin, move[1], move[2]


def lead_over_rivals(margins: Tensor) -> Tensor:
    """By how much each structure leads over the background and over every other one, (D, N, h, w).

    A neighbour that looks alike, as the spleen above the left kidney, must not draw a shape away
    from its place.
    """
    result = []
    for index in range(margins.shape[1]):
        others = torch.cat([margins[:, :index], margins[:, index + 1 :]], 1)
        rival = others.amax(1).clamp_min(0) if others.shape[1] else 0.0
        result.append(margins[:, index] - rival)
    return torch.stack(result, 1)


def move_shape(shape: Tensor, move: Sequence[int]) -> Tensor:
    """A shape (D, h, w) moved by whole slices, rows and columns; what comes in is empty."""
    result = torch.zeros_like(shape)
    target, source = [], []
    for length, step in zip(shape.shape, move, strict=True):
        target.append(slice(max(step, 0), min(length, length + step)))
        source.append(slice(max(-step, 0), min(length, length - step)))
    result[tuple(target)] = shape[tuple(source)]
    return result


def log_ratio(shape: Tensor) -> Tensor:
    """Log of the shares (D, N, h, w) of structures over what none of them fills.

    So neighbours compete with each other, not all with the background: where half a cell is the
    wall of a heart and half its blood, one of both is expected. Bounded, because no place is
    impossible.
    """
    empty = (1 - shape.sum(1, keepdim=True)).clamp_min(0)
    return ((shape + _FAINT) / (empty + _FAINT)).log()


def present_slices(shape: Tensor) -> Tensor:
    """Slices (D, N) in which shapes (D, N, h, w) are more than faint."""
    return shape.amax((2, 3)) > _FAINT


def to_cells(margins: Tensor, cell: int) -> Tensor:
    """Margins (n, N, H, W) at working resolution on the grid of the shapes."""
    return F.avg_pool2d(margins, cell, ceil_mode=True)


def to_pixels(cells: Tensor, cell: int, size: tuple[int, int]) -> Tensor:
    """Maps (n, N, h, w) on the grid of the shapes at the working resolution (H, W)."""
    full = [length * cell for length in cells.shape[-2:]]
    grown = F.interpolate(cells, size=full, mode="bilinear", align_corners=False)
    return grown[..., : size[0], : size[1]]


def largest_channel(logits: Tensor) -> Tensor:
    """The same as `logits.argmax(1)`, int32, in a third of the time on a CPU."""
    largest, number = logits[:, 0].clone(), torch.zeros_like(logits[:, 0], dtype=torch.int32)
    for channel in range(1, logits.shape[1]):
        number.masked_fill_(logits[:, channel] > largest, channel)
        torch.maximum(largest, logits[:, channel], out=largest)
    return number
