"""HPG: from a labelled slice to the two prototype sets of each structure, hard ones among them."""

import math
from typing import NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.cow_decoders import SelfPrediction
from fsmis_components.layers.resize import pooling_weights, upsample_corners
from fsmis_components.ops.masked_average_pool import masked_average_pool
from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.random_keys import random_keys

APPENDED = 2  # the mean and the edge prototype, at the end of each set
EDGE = 2  # pixels: two erosions or dilations by a 3x3 square (GMRD, TMI 2024, and CoW)


class PrototypeSets(NamedTuple):
    """What one slice tells about each structure.

    Attributes:
        foreground: (B, N, P_f, C), the last two the mean and the inner edge.
        background: (B, N, P_b, C), the last two the mean and the outer edge.
        predicted: self-predicted probability at the image's size, (B, N, H, W).
    """

    foreground: Tensor
    background: Tensor
    predicted: Tensor


class PrototypeMiner(nn.Module):
    """Segment a slice by its own mean prototype, then mine prototypes where that fails.

    CoW (Jiang & Zhang, IJCAI 2025): SSP and HPG. Means under masks are those of features upsampled
    to the image's size, as in the released code. Prototypes are mined on a square grid; the paper's
    is the image, 256 x 256, other image sizes are resized to the grid.

    Args:
        channels: C of the features; for the others see :class:`CoW`.
    """

    def __init__(
        self,
        channels: int,
        num_prototypes: Tuple[int, int],
        num_hard: Tuple[int, int],
        grid: int,
        predictor_width: int,
        self_prediction: bool,
        hpg: bool,
        guided_init: bool,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.hpg = hpg
        self.predictor = SelfPrediction(channels, predictor_width) if self_prediction else None
        made = [
            HardPrototypes(grid * grid, number, hard, guided_init) if hpg else None
            for number, hard in zip(num_prototypes, num_hard, strict=True)
        ]
        self.foreground, self.background = made
        self.set_sizes = [APPENDED + (number if hpg else 0) for number in num_prototypes]

    def forward(
        self, features: Tensor, mask: Tensor, inside: Tensor, seeds: Tensor
    ) -> PrototypeSets:
        """Return the prototype sets, float32.

        Args:
            features: of the slice, (B, C, h, w).
            mask: of each structure, (B, N, H, W) in [0, 1].
            inside: 1 on the slice, 0 on what was padded, (B, 1, H, W).
            seeds: of the random draws, int64 (B, N).
        """
        # autocast would take sums over whole slices in half precision
        with torch.autocast(features.device.type, enabled=False):
            mean = self._mean(features, mask)
        if self.predictor is None:
            score = torch.zeros_like(mask[:, :, :1, :1])
        else:
            score = self.predictor(features, mean)
        with torch.autocast(features.device.type, enabled=False):
            foreground, background = self._mine(features, mask, inside, seeds, mean, score)
            predicted = self._activate(score, (mask.shape[2], mask.shape[3]))
            return PrototypeSets(foreground, background, predicted)

    def _mean(self, features: Tensor, mask: Tensor) -> Tensor:
        """Average the upsampled features under masks (B, N, H, W): (B, N, C)."""
        size = (features.shape[2], features.shape[3])
        weights = pooling_weights(to_compute_dtype(mask), size)
        return masked_average_pool(to_compute_dtype(features), weights)

    def _mine(
        self,
        features: Tensor,
        mask: Tensor,
        inside: Tensor,
        seeds: Tensor,
        mean: Tensor,
        score: Tensor,
    ) -> Tuple[Tensor, Tensor]:
        """Return the sets of foreground and background."""
        inner, outer = edge_masks(mask)
        others = torch.cat([inside - mask, inner, outer * inside], 1)
        background_mean, inner_mean, outer_mean = self._mean(features, others).chunk(3, 1)
        foreground = torch.stack([mean, inner_mean], 2)
        background = torch.stack([background_mean, outer_mean], 2)

        if self.foreground is None or self.background is None:
            return foreground, background
        square = (self.grid, self.grid)
        found = self._activate(score, square) > 0.5
        on_grid = _on_grid(mask, square)
        off_grid = _on_grid(inside, square) & torch.logical_not(on_grid)
        predicts = self.predictor is not None
        weak_front = (on_grid & torch.logical_not(found) & predicts).flatten(2)
        weak_back = (off_grid & found & predicts).flatten(2)
        rows = upsample_corners(to_compute_dtype(features), square).flatten(2).transpose(1, 2)
        streams = random_keys(seeds, 2)
        front = self.foreground(rows, on_grid.flatten(2), weak_front, streams[..., 0])
        back = self.background(rows, off_grid.flatten(2), weak_back, streams[..., 1])
        return torch.cat([front, foreground], 2), torch.cat([back, background], 2)

    def _activate(self, score: Tensor, size: Tuple[int, int]) -> Tensor:
        # the released code has no sigmoid, and clamps
        return torch.sigmoid(upsample_corners(to_compute_dtype(score), size))


def _on_grid(mask: Tensor, square: Tuple[int, int]) -> Tensor:
    """Return where a mask covers half of a grid cell, or, if nowhere, where it covers most."""
    share = F.adaptive_avg_pool2d(to_compute_dtype(mask), square)
    most = share.amax((2, 3), keepdim=True)
    return (share >= most.clamp_max(0.5)) & (share > 0)


def edge_masks(mask: Tensor) -> Tuple[Tensor, Tensor]:
    """Return the inner and the outer edge of masks (B, N, H, W) in [0, 1].

    The mask minus itself eroded, and itself dilated minus the mask. The image's border is no edge.
    """
    return mask + _dilate(-mask), _dilate(mask) - mask


def _dilate(mask: Tensor) -> Tensor:
    """Return the maximum over a square, columns and rows apart: cheaper than over squares."""
    side = 2 * EDGE + 1
    return F.max_pool2d(F.max_pool2d(mask, (side, 1), 1, (EDGE, 0)), (1, side), 1, (0, EDGE))


class HardPrototypes(nn.Module):
    """Hard prototypes generation for one class, foreground or background (CoW, IJCAI 2025).

    The features of the class fill the whole square: where another class lies, a random feature of
    this one stands. Two linear layers along the positions, shared by all channels, turn them into
    `num_prototypes` vectors. Where the class has weak pixels, features drawn among these replace
    `num_hard` of the vectors.

    The paper's figure sends weak and other pixels through the layers separately; in its code, which
    is what ran, hard prototypes are raw features of weak pixels, and so they are here.

    Args:
        num_positions: positions of the square on which features are given.
        num_prototypes: size of the set.
        num_hard: of these, hard ones where there are weak pixels.
        guided_init: each prototype begins as the mean of a cell of the square, of which only
            features of the class are left. Else the layers begin at random.
    """

    def __init__(
        self, num_positions: int, num_prototypes: int, num_hard: int, guided_init: bool = False
    ) -> None:
        super().__init__()
        if not 0 < num_hard < num_prototypes:
            raise ValueError(
                "HardPrototypes: expected 0 < num_hard < num_prototypes, got "
                f"{num_hard} and {num_prototypes}"
            )
        self.num_prototypes = num_prototypes
        self.num_hard = num_hard
        self.first = nn.Linear(num_positions, num_prototypes)
        self.drop = nn.Dropout(0.2)  # as in the paper
        self.second = nn.Linear(num_prototypes, num_prototypes)
        if guided_init:
            with torch.no_grad():
                self.first.weight.copy_(_cell_means(num_positions, num_prototypes))
                self.second.weight.copy_(torch.eye(num_prototypes))
                self.first.bias.zero_()
                self.second.bias.zero_()

    def forward(self, features: Tensor, mask: Tensor, weak: Tensor, seeds: Tensor) -> Tensor:
        """Return the prototypes, float32 (B, N, num_prototypes, C).

        Args:
            features: of each position, (B, L, C).
            mask: where the class is, (B, N, L) bool. Without any position the set is zero.
            weak: which of these positions are predicted wrongly, (B, N, L) bool.
            seeds: of the random draws, int64 (B, N).
        """
        features = to_compute_dtype(features)
        keys = random_keys(seeds, 4)  # a seed for each draw
        normal = self._generate(features, mask, keys[..., 0])
        hard = _rows(features, draw(weak, keys[..., 1], self.num_hard))
        order = random_keys(keys[..., 3], self.num_prototypes).argsort(-1)
        kept = normal.gather(2, order.unsqueeze(-1).expand_as(normal))
        split = self.num_prototypes - self.num_hard
        both = torch.cat([kept[:, :, :split], hard], 2)
        return torch.where(_any(weak), both, normal) * _any(mask)

    def _generate(self, features: Tensor, mask: Tensor, seeds: Tensor) -> Tensor:
        """Fill the square with features of the mask and pass it through the layers."""
        filled = _rows(features, fill(mask, seeds)).flatten(0, 1)  # (B * N, L, C)
        # as batches of matrices: a plain matmul would copy the filled squares transposed
        first = self.first.weight.to(filled).expand(filled.shape[0], -1, -1)
        hidden = self.drop(torch.bmm(first, filled) + self.first.bias.to(filled).unsqueeze(1))
        mixed = torch.matmul(self.second.weight.to(filled), hidden)
        mixed = mixed + self.second.bias.to(filled).unsqueeze(1)
        return mixed.unflatten(0, [mask.shape[0], mask.shape[1]])


def fill(mask: Tensor, seeds: Tensor) -> Tensor:
    """Return for each position the position whose feature stands there, int64 (B, N, L).

    A position of the mask keeps its own. The others take positions of the mask at random: each at
    most once if there are enough, else whole copies of the mask and a random remainder. The mask
    is (B, N, L) bool, the seeds are int64 (B, N).
    """
    order, count = _random_order(mask, seeds)
    others = torch.logical_not(mask)
    rank = others.long().cumsum(-1) - 1
    drawn = order.gather(-1, rank.clamp_min(0) % count)
    place = torch.arange(mask.shape[-1], device=mask.device)
    return torch.where(mask, place, drawn)


def draw(mask: Tensor, seeds: Tensor, number: int) -> Tensor:
    """Return random positions of the mask, int64 (B, N, number), by the rule of :func:`fill`."""
    order, count = _random_order(mask, seeds)
    rank = torch.arange(number, device=mask.device).expand(mask.shape[0], mask.shape[1], number)
    return order.gather(-1, rank % count)


def _cell_means(num_positions: int, number: int) -> Tensor:
    """Return weights (number, positions) of means over so many cells of a square."""
    side = math.isqrt(num_positions)
    rows = next(r for r in range(math.isqrt(number), 0, -1) if number % r == 0)
    one_by_one = torch.eye(side).unsqueeze(0)
    vertical = F.adaptive_avg_pool1d(one_by_one, rows)[0]  # (side, rows)
    horizontal = F.adaptive_avg_pool1d(one_by_one, number // rows)[0]
    cells = torch.einsum("yi,xj->ijyx", vertical, horizontal)
    return cells.reshape(number, num_positions)


def _random_order(mask: Tensor, seeds: Tensor) -> Tuple[Tensor, Tensor]:
    """Positions of the mask in random order, before all others, and their number, at least 1."""
    keys = random_keys(seeds, mask.shape[-1]) >> 1  # room for a bit that puts the others last
    order = (keys + torch.where(mask, 0, 1 << 62)).argsort(-1)
    return order, mask.sum(-1, keepdim=True).clamp_min(1)


def _rows(features: Tensor, index: Tensor) -> Tensor:
    """Return features (B, L, C) at positions (B, N, K) as (B, N, K, C)."""
    b, length, c = features.shape[0], features.shape[1], features.shape[2]
    first = torch.arange(b, device=index.device).reshape(b, 1, 1) * length
    rows = features.reshape(b * length, c).index_select(0, (index + first).reshape(-1))
    return rows.reshape(b, index.shape[1], index.shape[2], c)


def _any(mask: Tensor) -> Tensor:
    return mask.any(-1)[:, :, None, None]
