"""How pairs of a query slice and a support's structure are decided, from prototypes to the mask."""

from typing import List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import cells_inside
from fsmis_components.layers.interactive_prototypes import InteractivePrototypes
from fsmis_components.layers.resize import resize_logits
from fsmis_components.layers.self_learning import SelfLearningDecoder
from fsmis_components.layers.self_support import SelfSupport


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
    """What B query slices, each by Q structures of support slices, answer on the way.

    Maps are margins, score_fg - score_bg, (B, Q, h, w) at the middle level's stride.
    """

    guidance: Tensor  # by the support's peak prototypes alone
    mean_map: Tensor
    peak_map: Tensor
    intermediate: Tensor  # both, blended
    own: Tensor  # by prototypes that are partly the query's own
    decided: Tensor  # (B, Q, H, W), at the image's size
    confident_foreground: Tensor  # bool: cells that gave the query's own prototypes, if any
    confident_background: Tensor
    trusted: Tensor  # bool (B, Q): were these used
    mean_tokens: Tensor  # (B, Q, 2, 2, C), see `InteractiveAnswer`
    peak_tokens: Tensor


class FeatureExchange(nn.Module):
    """Add to each query cell what it finds in the support slice by attention.

    An option of our reconstruction of IPSNet (after the abstract of Song et al., Artif. Intell.
    Med. 2025), off by default: the abstract speaks of prototypes that interact, not of features.
    The answer begins at zero, so the untrained module changes nothing.

    Args:
        channels: of the features.
        width: of queries and keys.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.query = nn.Linear(channels, width)
        self.key = nn.Linear(channels, width)
        self.value = nn.Linear(channels, channels)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, features: Tensor, cells: Tensor) -> Tensor:
        """Return features (P, C, h, w) of P queries, having seen cells (P, K, C) of supports."""
        tokens = features.flatten(2).transpose(1, 2)
        answer = F.scaled_dot_product_attention(
            self.query(tokens), self.key(cells), self.value(cells)
        )
        return features + answer.transpose(1, 2).reshape(features.shape)


class PairDecision(nn.Module):
    """Interactive prototypes, then self-learning with the query's own, then the decoder.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025).

    Args:
        prototypes: interactive prototypes.
        self_support: prototypes of the query's own; None, with the decoder: the interactive
            prototypes decide.
        decoder: corrects the answer of the prototypes.
        exchange: between features, before any prototype is compared; None: without.
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
        exchange: Optional[FeatureExchange],
        stride: int,
        pad_multiple: int,
        area_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.prototypes = prototypes
        self.self_support = self_support
        self.decoder = decoder
        self.exchange = exchange
        self.stride = stride
        self.pad_multiple = pad_multiple
        self.area_ratio = area_ratio

    def forward(
        self,
        slices: List[Tensor],
        mean: Tensor,
        peak: Tensor,
        area: Tensor,
        cells: Optional[Tensor],
        image_size: Tuple[int, int],
        known: Optional[Tensor] = None,
        use_known: Optional[Tensor] = None,
    ) -> PairMaps:
        """Decide B query slices by Q structures of support slices each.

        Args:
            slices: edge, low, middle and high-level features of the queries, (B, C, h, w) each.
            mean: the supports' mean prototypes of background and foreground, (B, Q, 2, C).
            peak: their peak prototypes, (B, Q, 2, C').
            area: cells that the structure fills in the support slice, (B, Q).
            cells: of the support slice, for the exchange, (B, Q, K, C).
            image_size: of the slices before padding.
            known: training: the queries' foreground cells, bool (B, Q, h, w).
            use_known: training: for which slices they replace the preliminary mask, bool (B,).
        """
        b, q = area.shape[0], area.shape[1]
        if self.exchange is not None and cells is not None:
            # what a query has exchanged differs from pair to pair: each becomes a slice of its own
            mid = self.exchange(slices[2].repeat_interleave(q, 0), cells.flatten(0, 1))
            apart = [maps.repeat_interleave(q, 0) for maps in slices]
            apart[2] = mid
            alone: Optional[Tensor] = None
            told: Optional[Tensor] = None
            if known is not None and use_known is not None:
                alone, told = known.flatten(0, 1).unsqueeze(1), use_known.repeat_interleave(q)
            found = self._decide(
                apart,
                mean.flatten(0, 1).unsqueeze(1),
                peak.flatten(0, 1).unsqueeze(1),
                area.flatten(0, 1).unsqueeze(1),
                image_size,
                alone,
                told,
            )
            return PairMaps(
                found.guidance.unflatten(0, [b, q]).squeeze(2),
                found.mean_map.unflatten(0, [b, q]).squeeze(2),
                found.peak_map.unflatten(0, [b, q]).squeeze(2),
                found.intermediate.unflatten(0, [b, q]).squeeze(2),
                found.own.unflatten(0, [b, q]).squeeze(2),
                found.decided.unflatten(0, [b, q]).squeeze(2),
                found.confident_foreground.unflatten(0, [b, q]).squeeze(2),
                found.confident_background.unflatten(0, [b, q]).squeeze(2),
                found.trusted.unflatten(0, [b, q]).squeeze(2),
                found.mean_tokens.unflatten(0, [b, q]).squeeze(2),
                found.peak_tokens.unflatten(0, [b, q]).squeeze(2),
            )
        return self._decide(slices, mean, peak, area, image_size, known, use_known)

    def _decide(
        self,
        slices: List[Tensor],
        mean: Tensor,
        peak: Tensor,
        area: Tensor,
        image_size: Tuple[int, int],
        known: Optional[Tensor],
        use_known: Optional[Tensor],
    ) -> PairMaps:
        mid, high = slices[2], slices[3]
        grid = (mid.shape[-2], mid.shape[-1])
        inside = cells_inside(image_size, grid, self.stride, mid.device)
        found = self.prototypes(mid, high, mean, peak, inside, known, use_known)
        margin = found.intermediate
        decided = self.to_image(margin, image_size)
        front = torch.zeros_like(margin, dtype=torch.bool)
        back, trusted = front, front.flatten(2).any(2)
        if self.self_support is not None and self.decoder is not None:
            probability = torch.sigmoid(margin)
            front, back = self.prototypes.sure(probability, inside)
            share = front.flatten(2).sum(2) / area.clamp_min(1e-6)
            trusted = (share <= self.area_ratio) & (share * self.area_ratio >= 1)
            scores = self.self_support(mid, found.prototypes, front, back, trusted)
            margin = scores[:, :, 1] - scores[:, :, 0]
            hints = torch.stack([probability, torch.sigmoid(found.guidance)], 2)
            added = self.decoder(slices, scores, hints)
            decided = self.to_image(margin, image_size) + self.to_image(added, image_size)
        # a labelled slice without a pixel of the structure: similar to background, to nothing else
        decided = torch.where((area > 0)[..., None, None], decided, -self.prototypes.scale)
        return PairMaps(
            found.guidance,
            found.mean_map,
            found.peak_map,
            found.intermediate,
            margin,
            decided,
            front,
            back,
            trusted,
            found.mean_tokens,
            found.peak_tokens,
        )

    @torch.jit.export
    def to_image(self, maps: Tensor, image_size: Tuple[int, int]) -> Tensor:
        """Enlarge maps (..., h, w) of the padded slice to the image's size, (..., H, W)."""
        multiple = self.pad_multiple
        h = (image_size[0] + multiple - 1) // multiple * multiple
        w = (image_size[1] + multiple - 1) // multiple * multiple
        flat = maps.reshape([1, -1, maps.shape[-2], maps.shape[-1]])
        enlarged = resize_logits(flat, (h, w))[:, :, : image_size[0], : image_size[1]]
        return enlarged.reshape(maps.shape[:-2] + image_size)
