"""How pairs of a query slice and a support's structure are decided, from prototypes to the mask.

IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025).
"""

from typing import NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cell_masks import cells_inside, confident_cells
from fsmis_components.layers.interactive_prototypes import (
    SCALE,
    SUPPORT_SHARE,
    InteractivePrototypes,
    IPSFeatures,
    class_scores,
)
from fsmis_components.layers.ips_decoders import SelfLearningDecoder
from fsmis_components.layers.resize import resize_logits
from fsmis_components.ops.masked_average_pool import masked_average_pool

# of SSP
GLOBAL_SHARE = 0.3  # of the one background prototype, beside the adaptive one
SHARPNESS = 2.0  # factor of the cosine in the adaptive weights


class PairMaps(NamedTuple):
    """Margins of B query slices by Q structures of support slices each.

    The first three are (B, Q, h, w) at the middle level's stride.
    """

    guidance: Tensor  # by the support's peak prototypes alone
    intermediate: Tensor  # by mean and peak prototypes after interaction, blended
    self_support: Tensor  # by prototypes that are partly the query's own
    decided: Tensor  # (B, Q, H, W), at the image's size


class SelfSupport(nn.Module):
    """Compare a query with prototypes that are partly its own (SSP; Fan et al., ECCV 2022).

    The abstract names a "query-features-guided self-learning": the support's foreground prototype
    is averaged with the mean of the query's sure foreground; background is the mean of its sure
    background, mixed for each cell with the sure background that resembles this cell.

    SSP compares each cell with all sure background cells. Here these are averaged in the fields of
    a grid first, so that nothing need be drawn at random to keep the number of them small.

    Args:
        grid: fields per side, at most.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(
        self,
        features: Tensor,
        prototypes: Tensor,
        foreground: Tensor,
        background: Tensor,
        trusted: Tensor,
    ) -> Tensor:
        """Return the scaled cosines to background and foreground, (B, Q, 2, h, w).

        Args:
            features: of B query slices, (B, C, h, w).
            prototypes: of background and foreground, after interaction, Q for each slice,
                (B, Q, 2, C).
            foreground: sure cells, bool (B, Q, h, w).
            background: likewise.
            trusted: bool (B, Q); False: the given prototypes alone.
        """
        sure = torch.stack([background, foreground], 2).flatten(1, 2).to(features.dtype)
        pooled = masked_average_pool(features, sure).reshape(prototypes.shape).to(prototypes.dtype)
        mixed = SUPPORT_SHARE * prototypes[:, :, 1] + (1 - SUPPORT_SHARE) * pooled[:, :, 1]
        pair = torch.stack([pooled[:, :, 0], mixed], 2)
        pair = torch.where(trusted[..., None, None], pair, prototypes)  # (B, Q, 2, C)
        scores = class_scores(features, pair)
        adapted = SCALE * self._adapted(features, pooled[:, :, 0], background)
        back = torch.where(trusted[..., None, None], adapted.to(scores.dtype), scores[:, :, 0])
        return torch.stack([back, scores[:, :, 1]], 2)

    def _adapted(self, features: Tensor, mean: Tensor, background: Tensor) -> Tensor:
        """Return the cosine of each cell to the background made for it, (B, Q, h, w).

        With w the weights of a cell and u_k the vector of field k, mixed with the one background
        prototype: the cosine to ``f = sum(w_k * u_k)`` needs ``sum(w_k * <q, u_k>)`` and
        ``|f|^2 = w' U U' w``, never the map of f itself.
        """
        vectors, filled = self._fields(features, background)  # (B, Q, K, C), (B, Q, K)
        mixed = GLOBAL_SHARE * mean.unsqueeze(2) + (1 - GLOBAL_SHARE) * vectors
        unit = F.normalize(features.float(), dim=1).flatten(2)  # (B, C, h * w)
        q, k = vectors.shape[1], vectors.shape[2]
        alike = torch.matmul(F.normalize(vectors, dim=-1).flatten(1, 2), unit)
        alike = alike.unflatten(1, [q, k])  # (B, Q, K, h * w)
        weights = torch.softmax(
            SHARPNESS * alike.float() + torch.where(filled > 0, 0.0, -1e4).unsqueeze(-1), 2
        )
        dot = torch.matmul(mixed.flatten(1, 2), unit).unflatten(1, [q, k])
        dot = (weights * dot).sum(2)
        products = torch.matmul(mixed, mixed.transpose(2, 3))  # (B, Q, K, K)
        square = (weights * torch.matmul(products, weights)).sum(2)
        cosine = dot / square.clamp_min(1e-12).sqrt()
        return cosine.unflatten(-1, [features.shape[2], features.shape[3]])

    def _fields(self, features: Tensor, background: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the mean vectors of the fields' sure cells, and how many there are."""
        h, w = features.shape[2], features.shape[3]
        high, wide = -(-h // self.grid), -(-w // self.grid)
        margin = [0, -w % wide, 0, -h % high]
        cells = _cut(F.pad(features.float(), margin), high, wide)  # (B, K, cells, C)
        sure = _cut(F.pad(background.float(), margin), high, wide)  # (B, K, cells, Q)
        filled = sure.sum(2).transpose(1, 2)  # (B, Q, K)
        total = torch.matmul(sure.transpose(2, 3), cells).transpose(1, 2)  # (B, Q, K, C)
        return total / filled.clamp_min(1.0).unsqueeze(-1), filled


class PairDecision(nn.Module):
    """Interactive prototypes, then self-learning with the query's own, then the decoder.

    Args:
        prototypes: interactive prototypes.
        self_support: prototypes of the query's own; None, with the decoder: the interactive
            prototypes decide.
        decoder: corrects the map of the prototypes.
        stride: of the middle level, in pixels.
        pad_multiple: padded slices are multiples of it.
    """

    def __init__(
        self,
        prototypes: InteractivePrototypes,
        self_support: Optional[SelfSupport],
        decoder: Optional[SelfLearningDecoder],
        stride: int,
        pad_multiple: int,
    ) -> None:
        super().__init__()
        self.prototypes = prototypes
        self.self_support = self_support
        self.decoder = decoder
        self.stride = stride
        self.pad_multiple = pad_multiple
        # the query's own prototypes are not used where its sure foreground is so many times larger
        # or smaller than the support's structure
        self.area_ratio = 4.0

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
        decided = torch.where((area > 0)[..., None, None], decided, -SCALE)
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


def _cut(maps: Tensor, high: int, wide: int) -> Tensor:
    """Cut maps (B, C, h, w) into fields of high x wide cells, (B, K, high * wide, C)."""
    rows, columns = maps.shape[2] // high, maps.shape[3] // wide
    cut = maps.reshape([maps.shape[0], maps.shape[1], rows, high, columns, wide])
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
