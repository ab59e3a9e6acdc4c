"""Random transforms of an episode's slices: drawn from the episode's seed, then applied."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from fsmis_components.transforms.contrast import (
    ContrastRanges,
    apply_contrast,
    draw_contrast,
    gamma,
)
from fsmis_components.transforms.warp import WarpRanges, apply_warp, draw_warp


@dataclass(frozen=True)
class EpisodeTransform:
    """Warp and re-colour the support and the query of an episode independently.

    Attributes:
        which: ``both`` transforms both slices (SSL-ALPNet's released code), ``one`` only one of
            them, drawn with equal chance (the paper's text); ``each`` warps one of them and
            re-colours one of them, drawn separately (CoW and its lineage, released code).
        warp: ranges of the geometric transform; the paper's by default.
        gamma: range of the gamma exponent; (0.5, 1.5) in the paper.
        contrast: ranges of the randomised contrast, which replaces gamma where it strikes.
        contrast_probability: share of pairs whose contrast is randomised; 0 is the paper.
    """

    which: str = "both"
    warp: WarpRanges = field(default_factory=WarpRanges.paper)
    gamma: tuple[float, float] = (0.5, 1.5)
    contrast: ContrastRanges = field(default_factory=ContrastRanges)
    contrast_probability: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an unknown choice of slices."""
        if self.which not in ("both", "one", "each"):
            raise ValueError(
                f"EpisodeTransform: expected which 'both', 'one' or 'each', got {self.which!r}"
            )

    def __call__(
        self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], seed: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Transform (image (1, H, W), masks (N, H, W)) of support and query."""
        rng = np.random.default_rng(seed)
        warped = coloured = int(rng.integers(2))
        randomised = bool(rng.random() < self.contrast_probability)
        if self.which == "each":
            coloured = int(rng.integers(2))
        pair = []
        for position, (image, masks) in enumerate((support, query)):
            if self.which == "both" or position == warped:
                image, masks = apply_warp(image, masks, draw_warp(rng, self.warp))
            if self.which == "both" or position == coloured:
                image = self._recolour(image, rng, randomised)
            pair.append((image, masks))
        return pair[0], pair[1]

    def _recolour(self, image: Tensor, rng: np.random.Generator, randomised: bool) -> Tensor:
        if randomised:
            return apply_contrast(image, draw_contrast(rng, self.contrast), statistics="input")
        return gamma(image, float(rng.uniform(*self.gamma)))
