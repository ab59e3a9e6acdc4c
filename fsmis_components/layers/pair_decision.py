"""How pairs of a query slice and a support's structure are decided, from prototypes to the mask.

IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025).
"""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import (
    cells_inside,
    channel_maxima,
    confident_cells,
    means_of_highest,
)
from fsmis_components.layers.prototype_interaction import PrototypeInteraction
from fsmis_components.layers.resize import resize_logits
from fsmis_components.layers.self_learning import SelfLearningDecoder
from fsmis_components.layers.self_support import SelfSupport
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.similarity import prototype_similarity

INTERACTIONS = ("none", "mean", "both")


class IPSFeatures(NamedTuple):
    """Features of a batch of slices at four levels, and the size of the images before padding."""

    edge: Tensor
    low: Tensor
    mid: Tensor
    high: Tensor
    image_size: Tuple[int, int]


def take_slices(features: IPSFeatures, first: int, end: int) -> IPSFeatures:
    """Return the features of the slices from first to end - 1."""
    return IPSFeatures(
        features.edge[first:end],
        features.low[first:end],
        features.mid[first:end],
        features.high[first:end],
        features.image_size,
    )


class PairMaps(NamedTuple):
    """Margins of B query slices by Q structures of support slices each.

    The first three are (B, Q, h, w) at the middle level's stride.
    """

    guidance: Tensor  # by the support's peak prototypes alone
    intermediate: Tensor  # by mean and peak prototypes after interaction, blended
    self_support: Tensor  # by prototypes that are partly the query's own
    decided: Tensor  # (B, Q, H, W), at the image's size


class InteractivePrototypes(nn.Module):
    """Mean prototypes of middle features and peak prototypes of high ones, each with interaction.

    The support's prototypes give a preliminary mask; its sure cells give the query's prototypes;
    both sides exchange (:class:`PrototypeInteraction`) and segment the query again.

    Args:
        mid_channels: of the middle features.
        high_channels: of the high features; 0: no peak prototypes.
        interaction: of ``both`` kinds of prototypes, of the ``mean`` ones, or ``none``.

    Raises:
        ValueError: an unknown interaction, or one that needs peak prototypes without them.
    """

    def __init__(
        self,
        mid_channels: int,
        high_channels: int,
        interaction: str = "both",
    ) -> None:
        super().__init__()
        if interaction not in INTERACTIONS:
            raise ValueError(f"expected interaction in {INTERACTIONS}, got {interaction!r}")
        if high_channels == 0 and interaction == "both":
            raise ValueError(
                "interaction 'both' needs peak prototypes; use 'mean' or 'none' without the deep "
                "module"
            )
        self.support_share = 0.5  # of the support's tokens in the prototypes; SSP (ECCV 2022)
        self.scale = 10.0  # factor of the cosine, as in SSP
        self.has_peaks = high_channels > 0
        self.mean_interaction = (
            PrototypeInteraction(mid_channels) if interaction != "none" else None
        )
        self.peak_interaction = (
            PrototypeInteraction(high_channels) if interaction == "both" else None
        )
        # the sigmoid of it is the weight of the mean map
        self.blend = nn.Parameter(torch.zeros(())) if high_channels > 0 else None

    def forward(
        self,
        query: IPSFeatures,
        mean: Tensor,
        peak: Tensor,
        inside: Tensor,
        known: Optional[Tensor] = None,
        use_known: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Segment B query slices by Q structures of support slices; see :class:`PairDecision`.

        Which cells are no padding is said by ``inside``, bool (1, h, w); C' of the peaks may be 0.

        Returns:
            two margins (B, Q, h, w), the guidance and the intermediate one of :class:`PairMaps`,
            and the prototypes of the classes at the middle level, (B, Q, 2, C).
        """
        mid, high = query.mid, query.high
        guidance = self.margins(high, peak) if self.has_peaks else self.margins(mid, mean)
        front, back = confident_cells(torch.sigmoid(guidance), inside)
        if known is not None and use_known is not None:
            replaced = use_known[:, None, None, None]
            front = torch.where(replaced, known, front)
            back = torch.where(replaced, inside & torch.logical_not(known), back)
        mean_tokens, peak_tokens = self.tokens(query, mean, peak, front, back)

        prototypes = mean if self.mean_interaction is None else self._joined(mean_tokens)
        blended = self.margins(mid, prototypes)
        if self.blend is not None:
            if self.peak_interaction is not None:
                peak = self._joined(peak_tokens)
            share = torch.sigmoid(self.blend)
            blended = share * blended + (1 - share) * self.margins(high, peak)
        return guidance, blended, prototypes

    def _joined(self, tokens: Tensor) -> Tensor:
        """Return the prototypes (B, Q, 2, C) of the classes, of both sides' tokens."""
        share = self.support_share
        return share * tokens[:, :, :, 0] + (1 - share) * tokens[:, :, :, 1]

    def tokens(
        self, query: IPSFeatures, mean: Tensor, peak: Tensor, foreground: Tensor, background: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """Return the mean and the peak tokens (B, Q, 2, 2, C) after interaction.

        Tokens are prototypes: class (background, foreground), then side (support, query). The
        queries' are those of their cells, foreground and background, bool (B, Q, h, w) each.
        """
        weights = torch.stack([background, foreground], 2).flatten(1, 2).to(query.mid.dtype)
        pooled = masked_average_pool(query.mid, weights).reshape(mean.shape).to(mean.dtype)
        means = torch.stack([mean, pooled], 3)
        if self.mean_interaction is not None:
            means = self.mean_interaction(means.flatten(0, 1)).reshape(means.shape)
        pooled = self.peaks(query.high, foreground, background).to(peak.dtype)
        peaks = torch.stack([peak, pooled], 3)
        if self.peak_interaction is not None:
            peaks = self.peak_interaction(peaks.flatten(0, 1)).reshape(peaks.shape)
        return means, peaks

    def peaks(self, high: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Return the peak prototypes of background and foreground cells, (B, Q, 2, C')."""
        b, q = foreground.shape[0], foreground.shape[1]
        if not self.has_peaks:
            return high.new_zeros([b, q, 2, 0])
        pairs = high.repeat_interleave(q, 0)
        front = channel_maxima(pairs, foreground.flatten(0, 1))
        back = means_of_highest(pairs, background.flatten(0, 1))
        return torch.stack([back, front], 1).reshape([b, q, 2, high.shape[1]])

    def margins(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the margins (B, Q, h, w) of features (B, C, h, w) by prototypes (B, Q, 2, C)."""
        flat = prototypes.to(features.dtype).flatten(1, 2).unsqueeze(2)
        # of one prototype the softmax-weighted sum is its scaled cosine
        scores = prototype_similarity(features, flat, scale=self.scale)
        b, h, w = features.shape[0], features.shape[2], features.shape[3]
        # by the features' shape: for the exporter to ONNX the batch of the scores is a constant
        scores = scores.reshape([b, prototypes.shape[1], 2, h, w])
        return scores[:, :, 1] - scores[:, :, 0]


class PairDecision(nn.Module):
    """Interactive prototypes, then self-learning with the query's own, then the decoder.

    Args:
        prototypes: interactive prototypes.
        self_support: prototypes of the query's own; None, with the decoder: the interactive
            prototypes decide.
        decoder: corrects the map of the prototypes.
        stride: of the middle level, in pixels.
        pad_multiple: padded slices are multiples of it.
        area_ratio: the query's own prototypes are not used where its sure foreground is so many
            times larger or smaller than the support's structure.
    """

    def __init__(
        self,
        prototypes: InteractivePrototypes,
        self_support: Optional[SelfSupport],
        decoder: Optional[SelfLearningDecoder],
        stride: int,
        pad_multiple: int,
        area_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.prototypes = prototypes
        self.self_support = self_support
        self.decoder = decoder
        self.stride = stride
        self.pad_multiple = pad_multiple
        self.area_ratio = area_ratio

    def forward(
        self,
        query: IPSFeatures,
        mean: Tensor,
        peak: Tensor,
        area: Tensor,
        known: Optional[Tensor] = None,
        use_known: Optional[Tensor] = None,
    ) -> PairMaps:
        """Decide B query slices by Q structures of support slices each.

        Args:
            query: features of the queries.
            mean: the supports' mean prototypes of background and foreground, (B, Q, 2, C).
            peak: their peak prototypes, (B, Q, 2, C').
            area: cells that the structure fills in the support slice, (B, Q).
            known: training: the queries' foreground cells, bool (B, Q, h, w).
            use_known: training: for which slices they replace the preliminary mask, bool (B,).
        """
        inside = self.inside(query)
        guidance, margin, prototypes = self.prototypes(query, mean, peak, inside, known, use_known)
        intermediate = margin
        decided = self.to_image(margin, query.image_size)
        if self.self_support is not None and self.decoder is not None:
            probability = torch.sigmoid(margin)
            front, back = confident_cells(probability, inside)
            share = front.flatten(2).sum(2) / area.clamp_min(1e-6)
            trusted = (share <= self.area_ratio) & (share * self.area_ratio >= 1)
            scores = self.self_support(query.mid, prototypes, front, back, trusted)
            margin = scores[:, :, 1] - scores[:, :, 0]
            hints = torch.stack([probability, torch.sigmoid(guidance)], 2)
            levels = [query.edge, query.low, query.mid, query.high]
            added = self.decoder(levels, scores, hints)
            decided = self.to_image(margin, query.image_size)
            decided = decided + self.to_image(added, query.image_size)
        # a labelled slice without a pixel of the structure: similar to background, to nothing else
        decided = torch.where((area > 0)[..., None, None], decided, -self.prototypes.scale)
        return PairMaps(guidance, intermediate, margin, decided)

    def inside(self, features: IPSFeatures) -> Tensor:
        """Return which cells (1, h, w) hold a pixel of the image."""
        mid = features.mid
        size = (mid.shape[-2], mid.shape[-1])
        return cells_inside(features.image_size, size, self.stride, mid.device)

    def to_image(self, maps: Tensor, image_size: Tuple[int, int]) -> Tensor:
        """Enlarge maps (..., h, w) of the padded slice to the image's size, (..., H, W)."""
        multiple = self.pad_multiple
        h = (image_size[0] + multiple - 1) // multiple * multiple
        w = (image_size[1] + multiple - 1) // multiple * multiple
        flat = maps.reshape([1, -1, maps.shape[-2], maps.shape[-1]])
        enlarged = resize_logits(flat, (h, w))[:, :, : image_size[0], : image_size[1]]
        return enlarged.reshape(maps.shape[:-2] + image_size)
