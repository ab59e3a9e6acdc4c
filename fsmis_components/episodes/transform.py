"""Random transforms of an episode's slices: drawn from the episode's seed, then applied."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsmis_components.transforms.contrast import (
    ContrastRanges,
    apply_contrast,
    draw_contrast,
    gamma,
)
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp

Slices = tuple[Tensor, Tensor]  # images and their masks


@dataclass(frozen=True)
class EpisodeTransform:
    """Warp and re-colour the support and the query of an episode independently."""

    # both: both slices are transformed (SSL-ALPNet's released code); each: one of them is warped
    # and one of them re-coloured, drawn separately (CoW and its lineage, released code)
    which: str = "both"
    warp: WarpRanges = field(default_factory=WarpRanges)  # the paper's
    gamma: tuple[float, float] = (0.5, 1.5)  # range of the exponent, the paper's
    contrast: ContrastRanges = field(default_factory=ContrastRanges)  # in place of gamma
    contrast_probability: float = 0.0  # share of pairs whose contrast is randomised; paper: 0

    def __post_init__(self) -> None:
        """Refuse an unknown choice of slices."""
        if self.which not in ("both", "each"):
            raise ValueError(
                f"EpisodeTransform: expected which 'both' or 'each', got {self.which!r}"
            )

    def __call__(self, support: Slices, query: Slices, seed: int) -> tuple[Slices, Slices]:
        """Transform images (1, 1, H, W) with masks (1, N, H, W) of support and query."""
        rng = np.random.default_rng(seed)
        warped = int(rng.integers(2))
        randomised = bool(rng.random() < self.contrast_probability)
        coloured = int(rng.integers(2)) if self.which == "each" else warped
        pair = []
        for position, ((image,), (masks,)) in enumerate((support, query)):
            if self.which == "both" or position == warped:
                image, masks = apply_warp(image, masks, draw_warp(rng, self.warp))
            if self.which == "both" or position == coloured:
                image = self._recolour(image, rng, randomised)
            pair.append((image[None], masks[None]))
        return pair[0], pair[1]

    def _recolour(self, image: Tensor, rng: np.random.Generator, randomised: bool) -> Tensor:
        if randomised:
            return apply_contrast(image, draw_contrast(rng, self.contrast))
        return gamma(image, float(rng.uniform(*self.gamma)))


@dataclass(frozen=True)
class PatientTransform:
    """Make two patients differ more than they do, and tasks more varied than a set's labels.

    Flips, quarter turns and the randomised contrast are shared by support and query, because two
    scans of one kind lie alike and look alike; warps, bias fields, gamma, blur, noise and
    resolution are drawn for either side.
    """

    turned: float = 0.3  # share of episodes that are flipped and turned by quarters
    contrast_probability: float = 0.5  # share of episodes whose contrast is randomised
    warp: WarpRanges = field(
        default_factory=lambda: WarpRanges(
            rotation=15,
            translation=15,
            shear=8,
            zoom=(0.8, 1.25),
            elastic_alpha=70,
            elastic_sigma=6,
            shear_about="centre",
        )
    )
    # its gamma, bias, blur and noise strike always
    contrast: ContrastRanges = field(
        default_factory=lambda: ContrastRanges(
            remap_probability=1.0, gamma=(0.7, 1.4), bias=0.2, blur_sigma=0.8
        )
    )
    coarse_probability: float = 0.25  # how often a side loses resolution
    coarsest: float = 2.5  # largest factor by which it does

    def __call__(self, support: Slices, query: Slices, seed: int) -> tuple[Slices, Slices]:
        """Transform images (S, 1, H, W) with masks (S, N, H, W) of support and query."""
        rng = np.random.default_rng(seed)
        turn = int(rng.integers(8)) if rng.random() < self.turned else 0
        levels = draw_contrast(rng, self.contrast).levels
        if rng.random() >= self.contrast_probability:
            levels = ()
        pair = []
        for images, masks in (support, query):
            warp = draw_warp(rng, self.warp)
            contrast = replace(draw_contrast(rng, self.contrast), levels=levels)
            factor = float(rng.uniform(1, self.coarsest))
            coarse = rng.random() < self.coarse_probability
            sides = []
            for image, mask in zip(_turn(images, turn), _turn(masks, turn), strict=True):
                image, mask = apply_warp(image, mask, warp, padding="minimum")
                image = _coarsen(image, factor) if coarse else image
                sides.append((apply_contrast(image, contrast), mask))
            pair.append((torch.stack([s[0] for s in sides]), torch.stack([s[1] for s in sides])))
        return pair[0], pair[1]


def _turn(maps: Tensor, turn: int) -> Tensor:
    """One of the eight ways to lay a square slice: quarter turns of it or of its mirror image."""
    maps = maps.flip(-1) if turn >= 4 else maps
    return torch.rot90(maps, turn % 4, (-2, -1))


def _coarsen(image: Tensor, factor: float) -> Tensor:
    size = image.shape[-2:]
    small = [max(1, round(side / factor)) for side in size]
    shrunk = F.interpolate(image[None], small, mode="bilinear", antialias=True)
    return F.interpolate(shrunk, size, mode="bilinear")[0]
