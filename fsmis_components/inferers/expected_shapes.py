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
from fsmis_components.inferers.encoded_slices import ABSENT
from fsmis_components.inferers.matching import VolumeMatch
from fsmis_components.inferers.registration import (
    correlation,
    register,
    stride_through,
    warp_shapes,
)
from fsmis_components.inferers.z_alignment import Alignment, between
from fsmis_components.support.scan_profile import ScanProfile, shape_cell
from fsmis_components.support.self_similarity import self_similarity
from fsmis_components.support.support_pack import SupportPack

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
    # of likeness at a place: a support scan that is so much less alike there than another counts
    # e times less; chosen on CHAOS-T2, ACDC and hippocampus, three labelled scans
    vote_scale: float = 0.03
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
# blurs in cells and in slices: what is moved to fit is sharper than what is expected in the end
_WIDE, _SHARP = (PRIOR.blur, PRIOR.blur_slices), (1.0, 0.5)


class Expected(NamedTuple):
    """Shares of the cells of a query that each structure is expected to fill, (D, N, h, w)."""

    shares: Tensor  # blurred, where it may lie
    fitted: Tensor  # hardly blurred, where the shape was moved to
    # how alike query and support are, once the support is bent; NaN: shapes were moved
    likeness: float = float("nan")
    alike: Tensor = torch.zeros(())  # `Registration.alike` of one support scan

    def areas(self, cell: int, size: tuple[int, int]) -> Tensor:
        """The pixels where anything is expected, bool (D, H, W) at the working resolution."""
        return to_pixels(self.shares.amax(1, keepdim=True), cell, size)[:, 0] > 0

    def added(self, margins: Tensor, start: int, cell: int) -> Tensor:
        """Margins (n, N, H, W) of the slices from `start` on with what is expected there."""
        shape = self.shares[start : start + len(margins)]
        height, width = margins.shape[-2:]
        prior = to_pixels(log_ratio(shape), cell, (height, width)).mul_(PRIOR.weight)
        return prior.add_(margins).masked_fill_(~present_slices(shape)[..., None, None], ABSENT)


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
    def _blurred(self) -> list[list[np.ndarray]]:
        """Shapes of each scan to be moved, wide and sharp; a registration needs none."""
        return [
            [blur_shapes(each.shapes, *blurs) for blurs in (_WIDE, _SHARP)]
            for each in self.pack.profiles
        ]

    @cached_property
    def topologies(self) -> list[Topology]:
        """See `pack_topologies`."""
        return pack_topologies(self.pack)

    @property
    def registrable(self) -> bool:
        """Whether all scans can be registered; those of former packs cannot."""
        return all(profile.self_similarity is not None for profile in self.pack.profiles)

    def of(
        self, match: VolumeMatch, view: SliceView, evidence: Tensor | None, registration: bool
    ) -> Expected:
        """What is expected in a query that lies as `match` says, on the cells of its slices.

        With `registration` scans are registered where they can be. Other shapes are moved to the
        evidence, margins (D, N, h, w) on the grid of the shapes; None: they stay where they are.
        """
        cell, (through, pixel) = shape_cell(self.pack.grid), view.working_spacing
        height, width = (-(-length // cell) for length in view.working_size)
        described: Tensor | None = None
        lead = None if evidence is None else lead_over_rivals(evidence)
        voting = registration and self.registrable
        found = []
        for scan, profile in enumerate(self.pack.profiles):
            share, line = float(match.shares[scan]), match.alignments[scan]
            if not share and not voting:
                continue
            if registration and profile.self_similarity is not None:
                if described is None:
                    described = self_similarity(view, self.pack.normalisation, cell)
                stride = stride_through(through, cell * pixel)
                of_scan = _registered(profile, line, described, stride, (height, width))
            else:
                of_scan = self._moved(scan, line, lead, (height, width))
            found.append((share, ~profile.extents.isnan().any(1), of_scan))
        likeness = sum(share * each.likeness for share, _, each in found)
        weights = [torch.tensor(share) for share, _, _ in found]
        if voting:
            weights = votes([each.alike for _, _, each in found])
        # a structure that a scan does not show has empty shapes there
        shares = fitted = total = torch.zeros(())
        for weight, (_, shown, each) in zip(weights, found, strict=True):
            shares = shares + weight * each.shares
            fitted = fitted + weight * each.fitted
            total = total + weight * shown[:, None, None]
        total = total.clamp_min(1e-6)
        return Expected(shares / total, fitted / total, likeness)

    def _moved(
        self, scan: int, line: Alignment, lead: Tensor | None, size: tuple[int, int]
    ) -> Expected:
        shares, fitted = (
            map_shapes(shapes, line.positions, pad_slices(blur_slices), size)
            for shapes, (_, blur_slices) in zip(self._blurred[scan], (_WIDE, _SHARP), strict=True)
        )
        depth = self.pack.profiles[scan].depth
        for index, evidence in enumerate(() if lead is None else lead.unbind(1)):
            move = best_move(evidence, fitted[:, index], depth, line.slope)
            shares[:, index] = move_shape(shares[:, index], move)
            fitted[:, index] = move_shape(fitted[:, index], move)
        return Expected(shares, fitted)


def _registered(
    profile: ScanProfile, line: Alignment, described: Tensor, through: int, size: tuple[int, int]
) -> Expected:
    """With `self_similarity` of the query, whose slices `stride_through` groups."""
    places, slope = line.positions, abs(line.slope)
    own = profile.self_similarity.numpy().astype(np.float32)  # type: ignore[union-attr]
    beside = ((1, 1), (0, 0), (0, 0), (0, 0))
    known = np.pad(np.ones_like(own[:, :1]), beside)
    shapes = profile.shapes.transpose(0, 1).numpy().astype(np.float32) / 255
    padded = np.pad(shapes, beside, mode="edge")
    # behind the ends there is nothing, or what was cut off goes on: as likely as not
    likely = 0.5 * profile.open_ends.T.numpy()[..., None, None]
    padded[[0, -1]] = np.minimum(padded[[0, -1]], likely)
    mapped = map_shapes(padded, places, 1, size)
    registration = register(
        described,
        map_shapes(own, places, 0, size),  # beyond the ends the last slice counts for nothing
        map_shapes(known, places, 1, size)[:, 0],
        mapped.amax(1),
        through,
        round(PRIOR.slices(profile.depth) / slope),
    )
    bent = warp_shapes(mapped, registration.field).numpy()
    share = PRIOR.registered_share(registration.likeness)
    shares = blur_each(bent, share * PRIOR.blur, share * PRIOR.blur_slices / slope)
    fitted = blur_each(bent, _SHARP[0], _SHARP[1] / slope)
    maps = torch.from_numpy(shares), torch.from_numpy(fitted)
    return Expected(*maps, registration.likeness, registration.alike)


def votes(alike: Sequence[Tensor]) -> list[Tensor]:
    """Weights (D, 1, h, w) of support scans that are so alike (D, h, w) at each place.

    Local weighted voting (Artaechevarria et al., IEEE TMI 2009): a scan that was bent well in one
    part and badly in another is followed in the first. At each place the best one has weight 1.
    """
    best = torch.stack(list(alike)).amax(0)
    return [((each - best) / PRIOR.vote_scale).exp()[:, None] for each in alike]


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
    lower, upper, above = between(positions + pad, len(shapes))
    share = torch.from_numpy(above.astype(np.float32))[:, None, None, None]
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
    everything = F.pad(margins, (0, 0, 0, 0, 1, 0))  # the margin of the background is zero
    numbers = range(everything.shape[1])
    rivals = [everything[:, [n for n in numbers if n != own]].amax(1) for own in numbers[1:]]
    return margins - torch.stack(rivals, 1)


def move_shape(shape: Tensor, move: Sequence[int]) -> Tensor:
    """A shape (D, h, w) moved by whole slices, rows and columns; what comes in is empty."""
    # F.pad counts axes from the last, and crops by what is negative
    return F.pad(shape, [length for step in reversed(move) for length in (step, -step)])


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
