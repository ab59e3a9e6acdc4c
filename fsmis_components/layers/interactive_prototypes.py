"""Interactive prototype learning: prototypes of support and query meet, those of classes part.

IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025).
"""

import math
from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import channel_maxima, confident_cells, means_of_highest
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import to_compute_dtype, unit_vectors
from fsmis_components.ops.similarity import prototype_similarity

# of SSP (Fan et al., ECCV 2022)
SCALE = 10.0  # factor of the cosine
SUPPORT_SHARE = 0.5  # of the support's prototypes, beside the query's own
INTERACTIONS = ("none", "mean", "both")

HEADS = 4
# share of the likeness to the other class that is taken away at first; each layer learns its own
GAMMA = 0.1


class IPSFeatures(NamedTuple):
    """Features of a batch of slices at four levels, and the size of the images before padding."""

    edge: Tensor
    low: Tensor
    mid: Tensor
    high: Tensor
    image_size: Tuple[int, int]


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

    def __init__(self, mid_channels: int, high_channels: int, interaction: str = "both") -> None:
        super().__init__()
        if interaction not in INTERACTIONS:
            raise ValueError(f"expected interaction in {INTERACTIONS}, got {interaction!r}")
        if high_channels == 0 and interaction == "both":
            raise ValueError(
                "interaction 'both' needs peak prototypes; use 'mean' or 'none' without the deep "
                "module"
            )
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
        return SUPPORT_SHARE * tokens[:, :, :, 0] + (1 - SUPPORT_SHARE) * tokens[:, :, :, 1]

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
        scores = class_scores(features, prototypes)
        return scores[:, :, 1] - scores[:, :, 0]


def class_scores(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return scaled cosines (B, Q, 2, h, w) of features (B, C, h, w) to prototypes (B, Q, 2, C)."""
    # of one prototype the softmax-weighted sum is its scaled cosine
    flat = prototypes.to(features.dtype).flatten(1, 2).unsqueeze(2)
    scores = prototype_similarity(features, flat, scale=SCALE)
    b, h, w = features.shape[0], features.shape[2], features.shape[3]
    # by the features' shape: for the exporter to ONNX the batch of the scores is a constant
    return scores.reshape([b, prototypes.shape[1], 2, h, w])


class PrototypeInteraction(nn.Module):
    """Exchange between the four prototypes of a pair: two classes, each of support and query.

    The abstract asks for more consistency within and less similarity between classes: attention
    among the two tokens of one class; :func:`suppress`; a feed-forward part for each token.

    Both learned parts stand beside the residual path and end in a projection that begins at zero:
    an untrained module is suppression alone, and with gamma 0 returns its input exactly. The type
    embeddings (which class, which side) are added behind the norm to what enters the parts, so that
    they cannot move a prototype by themselves.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.types = nn.Parameter(torch.zeros(2, 2, channels))
        self.layers = nn.ModuleList([_InteractionLayer(channels)])  # stored weights name a list

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens after the exchange, (P, 2, 2, C), float32 for half inputs.

        Args:
            tokens: prototypes of P pairs of a slice and a structure, (P, 2, 2, C): class
                (background, foreground), then side (support, query).
        """
        return self.layers[0](to_compute_dtype(tokens), self.types)


def suppress(tokens: Tensor, gamma: Tensor) -> Tensor:
    """Return tokens less a share of what they have in common with the opposite class.

    With u the unit vector along the mean of the two tokens of the opposite class:
    ``z - gamma * max(0, cos(z, u)) * |z| * u``. That lowers cos(z, u) where it is positive and
    leaves z as it is elsewhere. A token that is parallel to u grows shorter and keeps its cosine.
    A mean of zero suppresses nothing. Tokens are (P, 2, 2, C) as in :class:`PrototypeInteraction`,
    gamma is in [0, 1].
    """
    tokens = to_compute_dtype(tokens)
    # at the eps a direction begins to fade, and its gradient to be bounded
    opposite = unit_vectors(tokens.mean(2, keepdim=True), eps=1e-6).flip(1)  # (P, 2, 1, C)
    common = F.relu((tokens * opposite).sum(-1, keepdim=True))  # cos(z, u) * |z|
    return tokens - gamma * common * opposite


class _InteractionLayer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, HEADS, batch_first=True)
        self.gamma_logit = nn.Parameter(torch.tensor(math.log(GAMMA / (1 - GAMMA))))
        self.forward_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        for last in (self.attention.out_proj, self.narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        # a class is an element of the batch, so that it sees its own two tokens only
        x = (self.attention_norm(tokens) + types).flatten(0, 1)  # (P * 2, 2, C)
        # a view, that PyTorch not take its fused self-attention, which ONNX has not
        exchanged = self.attention(x.view_as(x), x, x, need_weights=False)[0]
        tokens = tokens + exchanged.reshape(tokens.shape)
        tokens = suppress(tokens, torch.sigmoid(self.gamma_logit))
        x = self.forward_norm(tokens) + types
        return tokens + self.narrow(F.gelu(self.widen(x)))
