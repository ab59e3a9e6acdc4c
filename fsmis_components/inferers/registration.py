"""How a support scan is to be bent so that it lies like the query: ConvexAdam on MIND.

A first search tries every shift within a reach, place by place, and couples neighbours; some steps
of gradient descent refine it (Siebert, Hansen and Heinrich, "Fast 3D registration with accurate
optimisation and little learning for Learn2Reg 2021"). Both scans come as `self_similarity`, so no
network and no intensity takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.support.self_similarity import patch_mean

# places are two cells apart in plane; chosen on CHAOS-T2 and hippocampus, as all numbers here
_STRIDE = 2
_COUPLING = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of neighbours, from loose to stiff
_WIDE, _NEAR = 4, 2  # reach of the first search, in twice as coarse places, and of the second
_MOST_THROUGH = 3  # places of the first search along z
_DEEP = 16  # places along z above which the first search halves them too
_STEPS, _RATE, _STIFFNESS = 30, 0.2, 0.25  # of the gradient descent
_MOMENTS = 0.9, 0.999  # Adam's, as in its paper
_ROUNDS = 10  # in which a field and its way back are brought together
_ALIKE = 0.5  # likeness from which on no other start is tried
_FAR = 10  # places in plane up to which what is labelled is looked for as a whole
_FAR_COST = 0.02  # added to its mean square difference at the end of that reach
_MET = 0.5  # share of what is labelled that must stay inside the query
_AROUND, _BESIDE = 2, 2  # places around what is labelled that are looked for, cells that are judged

Triple = tuple[int, int, int]


def stride_through(slice_spacing: float, cell: float) -> int:
    """Slices between places that are as far apart along z as in plane, of millimetres."""
    return max(1, round(_STRIDE * cell / slice_spacing))


class Registration(NamedTuple):
    """How the support lies in the query."""

    # float32 (3, D, h, w), in slices, rows and columns: the query at x shows what the support
    # shows at x + field(x)
    field: Tensor
    # in [-1, 1], the correlation of both scans around what is labelled, once the support is bent
    likeness: float
    alike: Tensor  # float32 (D, h, w), the same around each place


def register(
    query: Tensor, support: Tensor, known: Tensor, labelled: Tensor, through: int, reach: int
) -> Registration:
    """Bend a support until it lies like the query.

    The search begins as the scans lie. Where that ends with scans that hardly look alike, it begins
    again where what is labelled, with its surroundings, as a whole looks most like the query, and
    the better of both ends is kept.

    Args:
        query: descriptors (D, C, h, w).
        support: descriptors (D, C, h, w), mapped to the slices of the query.
        known: (D, h, w) in [0, 1], where the support scan has something.
        labelled: (D, h, w) in [0, 1], where any structure lies in it.
        through: see `stride_through`.
        reach: the largest displacement along z, in slices.
    """
    stride = _within((through, _STRIDE, _STRIDE), query[:, 0].shape)
    fixed, moving = _comparable(query, support)
    there, here, inside = (_pool(maps, stride) for maps in (fixed, moving, known[None]))
    far = min(max(1, round(reach / stride[0])), _MOST_THROUGH)

    def judged(places: Tensor) -> Registration:
        field = _upsample(places, query[:, 0].shape, stride)
        return _judged(fixed, moving, known, labelled, field)

    found = judged(_displacement(there, here, inside, far))
    if found.likeness >= _ALIKE:
        return found
    start = _start(there, here, inside, _pool(labelled[None], stride))
    if not start.any():
        return found
    at = start.expand(3, *there.shape[1:])
    shifted = _warp(here, at), _warp(inside, at, "zeros")
    other = judged(start + _displacement(there, *shifted, far))
    return max(found, other, key=lambda each: each.likeness)


def _displacement(fixed: Tensor, moving: Tensor, inside: Tensor, far: int) -> Tensor:
    """The field (3, d, h, w) between places, those along z at most so `far`."""
    coarse = _within((2 if fixed.shape[1] > _DEEP else 1, 2, 2), fixed.shape[1:])
    wide = (-(-far // coarse[0]), _WIDE, _WIDE)
    rough = _search(_pool(fixed, coarse), _pool(moving, coarse), _pool(inside, coarse), wide)
    field = _upsample(rough, fixed.shape[1:], coarse)
    near = _search(fixed, _warp(moving, field), _warp(inside, field, "zeros"), (1, _NEAR, _NEAR))
    return _refine(near + _warp(field, near), fixed, moving, inside)


def _start(fixed: Tensor, moving: Tensor, inside: Tensor, labelled: Tensor) -> Tensor:
    """The shift (3, 1, 1, 1), in places, by which what is labelled looks most like the query.

    Of every shift the mean square difference of query and support is scored, where anything is
    labelled and around it.
    """
    weight = _grow(labelled, _AROUND) * inside
    reach = [
        min(far, length - 1) for far, length in zip((1, _FAR, _FAR), fixed.shape[1:], strict=True)
    ]
    one = torch.ones_like(weight)
    total = correlation(weight, one, reach).clamp_min(0)
    # of weight (fixed - moving)^2, multiplied out
    there, here = (each.square().sum(0, keepdim=True) for each in (fixed, moving))
    square = correlation(
        torch.cat([weight, weight * here, -2 * weight * moving]),
        torch.cat([there, one, fixed]),
        reach,
    )
    met = total / weight.sum().clamp_min(1e-6)
    enough = met >= _MET
    if not enough.any():
        return torch.zeros(3, 1, 1, 1)
    score = square / total.clamp_min(1e-6)
    # what leaves the query is as unlike as the average
    score = score + (1 - met) * score[enough].mean()
    steps = [torch.linspace(-1, 1, 2 * far + 1) for far in reach]
    far_off = torch.stack(torch.meshgrid(*steps, indexing="ij")).square().sum(0)
    score = score + _FAR_COST * far_off
    best = torch.unravel_index(torch.where(enough, score, torch.inf).argmin(), score.shape)
    shift = [float(place) - far for place, far in zip(best, reach, strict=True)]
    return torch.tensor(shift).view(3, 1, 1, 1)


def _judged(
    fixed: Tensor, moving: Tensor, known: Tensor, labelled: Tensor, field: Tensor
) -> Registration:
    """Correlate query and bent support, where anything is labelled and beside it, and anywhere."""
    bent = _warp(moving, field)
    place, inside = (_warp(each[None], field, "zeros") for each in (labelled, known))
    weight = _grow(place, _BESIDE) * inside
    products = fixed * bent, fixed.square(), bent.square()
    likeness = _correlated(*((weight * each).sum() for each in products))
    local = patch_mean(torch.stack([(inside * each).sum(0) for each in products]))
    return Registration(field, float(likeness), _correlated(*local))


def _correlated(both: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return both / (left * right).sqrt().clamp_min(1e-6)


def _grow(maps: Tensor, far: int) -> Tensor:
    """Maps (C, D, h, w) as large as anything so many rows and columns around."""
    return F.max_pool3d(maps[None], (1, 2 * far + 1, 2 * far + 1), 1, (0, far, far))[0]


def correlation(left: Tensor, right: Tensor, reach: Sequence[int]) -> Tensor:
    """Sum over x of left(x + t) right(x), for every shift t within the reach, (2 r + 1, ...).

    Both (C, D, h, w), summed over channels, by Fourier transform.
    """
    size = [length + far for length, far in zip(left.shape[1:], reach, strict=True)]
    axes = (1, 2, 3)
    spectrum = (
        torch.fft.rfftn(left, s=size, dim=axes) * torch.fft.rfftn(right, s=size, dim=axes).conj()
    )
    full = torch.fft.irfftn(spectrum.sum(0), s=size)
    for axis, far in enumerate(reach):
        full = full.roll(far, axis).narrow(axis, 0, 2 * far + 1)
    return full


def warp_shapes(shapes: Tensor, field: Tensor) -> Tensor:
    """Shapes (D, N, h, w) bent by a displacement (3, D, h, w); what comes in is empty."""
    return _warp(shapes.transpose(0, 1), field, "zeros").transpose(0, 1).contiguous()


def _comparable(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Both (C, D, h, w) without what all places share, of mean square 1 summed over channels."""
    left, right = query.float().transpose(0, 1), support.float().transpose(0, 1)
    mean = (left.mean((1, 2, 3), keepdim=True) + right.mean((1, 2, 3), keepdim=True)) / 2
    left, right = left - mean, right - mean
    power = (left.square().sum(0).mean() + right.square().sum(0).mean()) / 2
    scale = power.clamp_min(1e-6).rsqrt()
    return left * scale, right * scale


def _within(stride: Triple, size: torch.Size) -> Triple:
    """A stride that a stack of few slices, or of slices of few cells, is long enough for."""
    through, row, column = (min(step, length) for step, length in zip(stride, size, strict=True))
    return through, row, column


def _pool(maps: Tensor, stride: Triple) -> Tensor:
    return F.avg_pool3d(maps[None], stride, ceil_mode=True)[0]


def _upsample(field: Tensor, size: torch.Size, stride: Triple) -> Tensor:
    """A displacement between coarse places as one between fine ones."""
    fine = F.interpolate(field[None], size=size, mode="trilinear", align_corners=False)[0]
    return fine * torch.tensor(stride, dtype=torch.float32).view(3, 1, 1, 1)


def _warp(maps: Tensor, field: Tensor, outside: str = "border") -> Tensor:
    """Maps (C, D, h, w) read at x + field(x)."""
    size = maps.shape[1:]
    axes = [torch.arange(length, dtype=torch.float32) for length in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field
    unit = [2 * places[axis] / max(1, size[axis] - 1) - 1 for axis in (2, 1, 0)]
    grid = torch.stack(unit, -1)[None]
    return F.grid_sample(maps[None], grid, padding_mode=outside, align_corners=True)[0]


def _search(fixed: Tensor, moving: Tensor, inside: Tensor, reach: Triple) -> Tensor:
    """The field of a search in both directions, consistent with the way back."""
    there = _couple(fixed, moving, inside[0], reach)
    back = _couple(moving, fixed, torch.ones_like(inside[0]), reach)
    for _ in range(_ROUNDS):
        there, back = (0.5 * (there - _warp(back, there)), 0.5 * (back - _warp(there, back)))
    return there


def _couple(fixed: Tensor, moving: Tensor, inside: Tensor, reach: Triple) -> Tensor:
    """Every shift is scored at every place, then neighbours agree step by step."""
    size = fixed.shape[1:]
    far = [min(most, length - 1) for most, length in zip(reach, size, strict=True)]
    pad = [each for each in reversed(far) for _ in range(2)]
    around = F.pad(moving[None], pad, mode="replicate")[0]
    seen = F.pad(inside, pad)
    shifts = list(product(*(range(-each, each + 1) for each in far)))
    costs = []
    for shift in shifts:
        window = tuple(
            slice(first + step, first + step + length)
            for first, step, length in zip(far, shift, size, strict=True)
        )
        difference = (fixed - around[(slice(None), *window)]).square().sum(0)
        # what lies outside the support scan is as unlike as the average place
        costs.append(difference * seen[window] + (1 - seen[window]) * difference.mean())
    cost = patch_mean(torch.stack(costs))
    steps = torch.tensor(shifts, dtype=torch.float32)
    # of equal shifts the first, as by argmin, which takes twice as long on a CPU
    field = patch_mean(steps[cost.min(0).indices].permute(3, 0, 1, 2))
    length = steps.square().sum(1, keepdim=True)
    for stiffness in _COUPLING:
        # cost + stiffness |field - shift|^2, less what all shifts share
        total = torch.addmm(cost.flatten(1), steps, field.flatten(1), alpha=-2 * stiffness)
        chosen = total.add_(stiffness * length).min(0).indices.view(size)
        field = patch_mean(patch_mean(steps[chosen].permute(3, 0, 1, 2)))
    return field


def _refine(field: Tensor, fixed: Tensor, moving: Tensor, inside: Tensor) -> Tensor:
    """Gradient descent on likeness and smoothness of the field."""
    # volumes are segmented without gradients, whose tensors cannot take part in them
    with torch.inference_mode(False), torch.enable_grad():
        fixed, moving, inside = fixed.clone(), moving.clone(), inside.clone()
        free = field.clone().requires_grad_(True)
        mean, square = torch.zeros_like(field), torch.zeros_like(field)
        for step in range(1, _STEPS + 1):
            smooth = patch_mean(patch_mean(free))
            unlike = (fixed - _warp(moving, smooth)).square().mean(0)
            seen = _warp(inside, smooth, "zeros")[0]
            if step == 1:
                average = (unlike * seen).sum().detach() / seen.sum().detach().clamp_min(1)
            # leaving the support scan must not pay: outside it counts as the average place does
            loss = 12 * (unlike * seen + average * (1 - seen)).mean()
            for axis in (1, 2, 3):
                if smooth.shape[axis] > 1:
                    loss = loss + _STIFFNESS * smooth.diff(dim=axis).square().mean()
            (slope,) = torch.autograd.grad(loss, free)
            # Adam (Kingma and Ba, ICLR 2015); that of torch.optim takes two seconds to import
            mean.lerp_(slope, 1 - _MOMENTS[0])
            square.mul_(_MOMENTS[1]).addcmul_(slope, slope, value=1 - _MOMENTS[1])
            scale = square.sqrt().div_((1 - _MOMENTS[1] ** step) ** 0.5).add_(1e-8)
            free.data.addcdiv_(mean, scale, value=-_RATE / (1 - _MOMENTS[0] ** step))
        return patch_mean(patch_mean(free.detach()))
