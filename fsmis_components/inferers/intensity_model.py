"""What a scan's own intensities say: how those of a structure differ from those around it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.inferers.encoded_slices import marked_side


@dataclass(frozen=True)
class IntensityRule:
    """How intensities of a query are learned and how much they count.

    The defaults were chosen on CHAOS-T2, ACDC and CT; each lies on a plateau.
    """

    near: float = -5.0  # margin from which on a place counts as near a structure
    levels: int = 32  # of intensity, each holding as many pixels
    rounds: int = 3
    sharpness: float = 2.0  # of the memberships, relative to the margins'
    # so many pixels of a structure count half, because few pixels tell little of its intensities
    few: float = 100.0
    most: float = 3.0  # evidence of one pixel
    pixels: int = 2**22  # of a scan that are learned from at the most, with those far away

    def stride(self, pixels: int) -> int:
        """Rows and columns from one to the next that is learned from, of a scan of so many pixels.

        Every second one tells as much as all; larger scans take no more memory.
        """
        return max(2, math.ceil((pixels / self.pixels) ** 0.5))


INTENSITY = IntensityRule()
_ANY_LEVEL = 0.01  # share of pixels that may have any level: no level is impossible
_FAINT = 1e-6


@dataclass(frozen=True)
class IntensityModel:
    """The evidence of each level of intensity for each structure of one scan.

    The margins say how likely each place belongs to each structure; so weighted, histograms of the
    scan itself give the densities of a structure and of the background around it, and the log of
    their ratio goes into the margins, from which memberships follow anew: expectation maximisation
    with a spatial prior (Van Leemput et al., IEEE TMI 1999; Ashburner & Friston, NeuroImage 2005).
    No intensity of the support takes part, so scans need not have a contrast in common.
    """

    edges: Tensor  # (levels - 1,) intensities between levels, ascending
    evidence: Tensor  # (N, levels) of the structures

    @classmethod
    def learn(cls, slices: Iterable[tuple[Tensor, Tensor]], stride: int) -> IntensityModel | None:
        """Learn from batches of images (n, H, W) and margins (n, N, H, W); None: nothing is near.

        Margins are of a scale of 20, expected shapes included; all lie on the CPU. See
        `IntensityRule.stride`.
        """
        seen, known = [], []
        for images, margins in slices:
            thin = margins[..., ::stride, ::stride]
            any_near = thin.amax(1) > INTENSITY.near
            seen.append(images[:, ::stride, ::stride][any_near])
            known.append(thin.transpose(0, 1)[:, any_near])
        pixels, margins = torch.cat(seen), torch.cat(known, 1)
        if not len(pixels):
            return None
        cuts = torch.linspace(0, len(pixels) - 1, INTENSITY.levels + 1)[1:-1].long()
        edges = pixels.sort().values[cuts]
        levels = torch.bucketize(pixels, edges)
        near = [torch.nonzero(row > INTENSITY.near).flatten() for row in margins]
        own = [levels[places] for places in near]
        evidence = torch.zeros(len(margins), INTENSITY.levels)
        refined = margins.clone()
        for _ in range(INTENSITY.rounds):
            members = F.pad(refined, (0, 0, 1, 0)).mul_(INTENSITY.sharpness).softmax(0)
            for index, places in enumerate(near):
                inside, outside = (
                    torch.bincount(own[index], members[which][places].double(), INTENSITY.levels)
                    for which in (1 + index, 0)
                )
                evidence[index] = _evidence(inside, outside)
                refined[index, places] = margins[index, places] + evidence[index][own[index]]
        return cls(edges, evidence)

    def add_to(self, margins: Tensor, images: Tensor) -> Tensor:
        """Add the evidence of images (n, H, W) to margins (n, N, H, W), in place, where near."""
        levels = torch.bucketize(images, self.edges)
        for index, evidence in enumerate(self.evidence):
            near = margins[:, index] > INTENSITY.near
            area = near.any(0)
            if not area.any():
                continue
            box = (slice(None), marked_side(area.any(1)), marked_side(area.any(0)))
            # pixels are noisy, and structures wider than one
            margins[:, index][box] += _softened(evidence[levels[box]]) * near[box]
        return margins


def _evidence(inside: Tensor, outside: Tensor) -> Tensor:
    """The log ratio of both densities at each level."""
    count = inside.sum()
    both = F.pad(torch.stack([inside, outside])[:, None], (1, 1), mode="replicate")[:, 0]
    smooth = (both[:, :-2] + 2 * both[:, 1:-1] + both[:, 2:]) / 4
    shares = smooth / smooth.sum(1, keepdim=True).clamp_min(_FAINT)
    of_it, around = torch.lerp(shares, torch.full_like(shares, 1 / INTENSITY.levels), _ANY_LEVEL)
    of_it = (count * of_it + INTENSITY.few * around) / (count + INTENSITY.few)
    return (of_it / around).log().clamp(-INTENSITY.most, INTENSITY.most).float()


def _softened(maps: Tensor) -> Tensor:
    """Maps (n, h, w) by the weights 1, 2, 1 along rows and columns."""
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)[:, 0]
