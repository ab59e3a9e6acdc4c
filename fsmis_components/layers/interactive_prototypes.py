"""Interactive prototype learning: support and query prototypes of two levels segment a query."""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from fsmis_components.layers.confident_cells import ConfidentCells
from fsmis_components.layers.peak_prototypes import PeakPrototypes
from fsmis_components.layers.prototype_interaction import PrototypeInteraction
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.similarity import prototype_similarity

INTERACTIONS = ("none", "mean", "peak", "both", "loss")


class InteractiveAnswer(NamedTuple):
    """What B query slices answer, each to Q structures of support slices.

    The maps are margins, score_fg - score_bg, (B, Q, h, w). Tokens are prototypes
    (B, Q, 2, 2, C): class (background, foreground), then side (support, query); C is 0 where
    there are none.
    """

    guidance: Tensor  # by the support's peak prototypes alone
    mean_map: Tensor
    peak_map: Tensor
    intermediate: Tensor  # both, blended
    mean_tokens: Tensor
    peak_tokens: Tensor
    prototypes: Tensor  # of the classes at the middle level, (B, Q, 2, C)


class InteractivePrototypes(nn.Module):
    """Mean prototypes of middle features and peak prototypes of high ones, each with interaction.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025). The
    support's prototypes give a preliminary mask; its sure cells give the query's prototypes; both
    sides exchange (:class:`PrototypeInteraction`) and segment the query again.

    Args:
        mid_channels: of the middle features.
        high_channels: of the high features; 0: no peak prototypes.
        peak: kind of the foreground's peak prototypes, see :class:`PeakPrototypes`. Background is
            ``topk_mean`` always: its maximum saturates.
        interaction: ``both``, ``mean``, ``peak``, ``none``, or ``loss``: tokens are made for the
            prototype loss, but the support's alone segment.
        layers: of the interaction.
        confidence: thresholds of foreground and background, see :class:`ConfidentCells`.
        support_share: weight of the support's tokens in the prototypes of the classes; 0.5 in SSP
            (Fan et al., ECCV 2022).
        scale: factor of the cosine; 10 in SSP.

    Raises:
        ValueError: an unknown interaction, or one that needs peak prototypes without them.
    """

    def __init__(
        self,
        mid_channels: int,
        high_channels: int,
        peak: str = "channel_max",
        interaction: str = "both",
        layers: int = 1,
        confidence: Tuple[float, float] = (0.7, 0.6),
        support_share: float = 0.5,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        if interaction not in INTERACTIONS:
            raise ValueError(
                f"InteractivePrototypes: expected interaction in {INTERACTIONS}, got "
                f"{interaction!r}"
            )
        if high_channels == 0 and interaction in ("peak", "both"):
            raise ValueError(
                f"InteractivePrototypes: interaction {interaction!r} needs peak prototypes; use "
                "'mean', 'none' or 'loss' without the deep module"
            )
        self.scale = scale
        self.has_peaks = high_channels > 0
        self.sure = ConfidentCells(confidence[0], confidence[1])
        self.foreground_peak = PeakPrototypes(peak)
        self.background_peak = PeakPrototypes("topk_mean")
        self.mean_interaction = (
            PrototypeInteraction(mid_channels, layers, support_share=support_share)
            if interaction in ("mean", "both")
            else None
        )
        self.peak_interaction = (
            PrototypeInteraction(high_channels, layers, support_share=support_share)
            if interaction in ("peak", "both")
            else None
        )
        # the sigmoid of it is the weight of the mean map
        self.blend = nn.Parameter(torch.zeros(())) if high_channels > 0 else None

    def forward(
        self,
        mid: Tensor,
        high: Tensor,
        mean: Tensor,
        peak: Tensor,
        inside: Tensor,
        known: Optional[Tensor] = None,
        use_known: Optional[Tensor] = None,
    ) -> InteractiveAnswer:
        """Segment B query slices by Q structures of support slices each.

        Args:
            mid: features of the queries, (B, C, h, w).
            high: likewise, (B, C', h, w); C' may be 0.
            mean: the supports' mean prototypes of background and foreground, (B, Q, 2, C).
            peak: their peak prototypes, (B, Q, 2, C').
            inside: which cells are no padding, bool (1, h, w).
            known: training: the queries' foreground cells, bool (B, Q, h, w).
            use_known: training: for which slices they replace the preliminary mask, bool (B,).
        """
        guidance = self.margins(high, peak) if self.has_peaks else self.margins(mid, mean)
        front, back = self.sure(torch.sigmoid(guidance), inside)
        if known is not None and use_known is not None:
            told = use_known[:, None, None, None]
            front = torch.where(told, known, front)
            back = torch.where(told, inside & torch.logical_not(known), back)
        mean_tokens, peak_tokens = self.tokens(mid, high, mean, peak, front, back)

        prototypes = mean
        if self.mean_interaction is not None:
            tokens = mean_tokens.flatten(0, 1)
            prototypes = self.mean_interaction.class_prototypes(tokens).reshape(mean.shape)
        mean_map = self.margins(mid, prototypes)
        if self.blend is None:
            peak_map, blended = torch.zeros_like(mean_map), mean_map
        else:
            peaks = peak
            if self.peak_interaction is not None:
                tokens = peak_tokens.flatten(0, 1)
                peaks = self.peak_interaction.class_prototypes(tokens).reshape(peak.shape)
            peak_map = self.margins(high, peaks)
            share = torch.sigmoid(self.blend)
            blended = share * mean_map + (1 - share) * peak_map
        return InteractiveAnswer(
            guidance, mean_map, peak_map, blended, mean_tokens, peak_tokens, prototypes
        )

    def tokens(
        self,
        mid: Tensor,
        high: Tensor,
        mean: Tensor,
        peak: Tensor,
        foreground: Tensor,
        background: Tensor,
    ) -> Tuple[Tensor, Tensor]:
        """Return the mean and the peak tokens (B, Q, 2, 2, C) after interaction.

        Args:
            mid: see :func:`forward`; so are high, mean and peak.
            high: likewise.
            mean: likewise.
            peak: likewise.
            foreground: cells of the queries that give their prototypes, bool (B, Q, h, w).
            background: likewise.
        """
        weights = torch.stack([background, foreground], 2).flatten(1, 2).to(mid.dtype)
        own = masked_average_pool(mid, weights).reshape(mean.shape).to(mean.dtype)
        means = torch.stack([mean, own], 3)
        if self.mean_interaction is not None:
            means = self.mean_interaction(means.flatten(0, 1)).reshape(means.shape)
        own = self.peaks(high, foreground, background).to(peak.dtype)
        peaks = torch.stack([peak, own], 3)
        if self.peak_interaction is not None:
            peaks = self.peak_interaction(peaks.flatten(0, 1)).reshape(peaks.shape)
        return means, peaks

    def peaks(self, high: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Return the peak prototypes of background and foreground cells, (B, Q, 2, C')."""
        b, q = foreground.shape[0], foreground.shape[1]
        if not self.has_peaks:
            return high.new_zeros([b, q, 2, 0])
        pairs = high.repeat_interleave(q, 0)
        front = self.foreground_peak(pairs, foreground.flatten(0, 1))
        back = self.background_peak(pairs, background.flatten(0, 1))
        return torch.stack([back, front], 1).reshape([b, q, 2, high.shape[1]])

    def margins(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the margins (B, Q, h, w) of features (B, C, h, w) by prototypes (B, Q, 2, C)."""
        flat = prototypes.to(features.dtype).flatten(1, 2).unsqueeze(2)
        scores = prototype_similarity(features, flat, reduction="max", scale=self.scale)
        b, h, w = features.shape[0], features.shape[2], features.shape[3]
        # by the features' shape: for the exporter to ONNX the batch of the scores is a constant
        scores = scores.reshape([b, prototypes.shape[1], 2, h, w])
        return scores[:, :, 1] - scores[:, :, 0]
