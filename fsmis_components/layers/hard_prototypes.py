"""HPG: prototypes of one class that insist on the pixels which the mean prototype gets wrong."""

import math
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.precision import to_compute_dtype
from fsmis_components.ops.random_keys import random_keys


class HardPrototypes(nn.Module):
    """Hard prototypes generation for one class, foreground or background (CoW, IJCAI 2025).

    The features of the class fill the whole square: where another class lies, a random feature of
    this one stands. Two linear layers along the positions, shared by all channels, turn them into
    `num_prototypes` vectors. Where the class has weak pixels, features drawn among these replace
    `num_hard` of the vectors.

    The paper's figure sends weak and other pixels through the layers separately; in its code, which
    is what ran, hard prototypes are raw features of weak pixels, and so they are here.

    Args:
        num_positions: positions of the square on which features are given; 65,536 in the paper.
        num_prototypes: size of the set; 100 (foreground) and 600 (background) in the paper.
        num_hard: of these, hard ones where there are weak pixels; 50 and 100 in the paper.
        guided_init: begin with local means: each prototype is the mean of a cell of the square, of
            which only features of the class are left. Else the layers begin at random, as in the
            released code.

    Raises:
        ValueError: more hard prototypes than prototypes.
    """

    def __init__(
        self,
        num_positions: int,
        num_prototypes: int,
        num_hard: int,
        guided_init: bool = False,
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
        weak = weak & mask
        normal = self._generate(features, mask, keys[..., 0])
        hard = _rows(features, draw(weak, keys[..., 1], self.num_hard))
        kept = _take(normal, random_keys(keys[..., 3], self.num_prototypes).argsort(-1))
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
    most once if there are enough, else whole copies of the mask and a random remainder.

    Args:
        mask: (B, N, L) bool.
        seeds: int64 (B, N).
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


def _take(prototypes: Tensor, index: Tensor) -> Tensor:
    """Return prototypes (B, N, P, C) in another order (B, N, K)."""
    return prototypes.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, prototypes.shape[3]))


def _any(mask: Tensor) -> Tensor:
    return mask.any(-1)[:, :, None, None]
