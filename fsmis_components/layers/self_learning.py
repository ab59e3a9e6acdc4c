"""Decoder of IPSNet: separated features of a query and its low-level maps become the mask."""

from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.deep_module import double_conv, group_norm
from fsmis_components.layers.resize import resize_logits


class SelfLearningDecoder(nn.Module):
    """Corrects the prototypes' map with features that are separated by this map.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025): it says
    that foreground and background are separated at the feature level and that low-level maps bring
    the boundary in. What all structures and supports of a slice share is convolved once for the
    slice: a convolution is linear, and so is its sum over groups of channels.

    Args:
        channels: of the edge, low, middle and high-level features.
        split_width: channels of each separated map; 128 in our specification.
        widths: channels at the middle, the low and the edge level; 256, 128 and 64.
        low_level: the low and the edge level are seen, up to twice as strongly where the map is
            undecided; False: they are not (ablation).

    Raises:
        ValueError: not three widths.
    """

    def __init__(
        self,
        channels: Sequence[int],
        split_width: int = 128,
        widths: Sequence[int] = (256, 128, 64),
        low_level: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"SelfLearningDecoder: expected three widths, got {list(widths)}")
        edge, low, mid, high = channels
        self.split = nn.Conv2d(mid, 2 * split_width, 1)
        self.low: Optional[nn.Conv2d] = None
        self.edge: Optional[nn.Conv2d] = None
        low_width = edge_width = 0
        if low_level:
            # the 48 channels are DeepLabV3+'s (Chen et al., ECCV 2018), for 128 behind them
            low_width, edge_width = max(8, widths[1] * 3 // 8), widths[2] // 2
            self.low = nn.Conv2d(low, low_width, 1)
            self.edge = nn.Conv2d(edge, edge_width, 1)
        # stored weights name a list
        path = _Path(2 * split_width, high, split_width, low_width, edge_width, widths)
        self.paths = nn.ModuleList([path])

    def forward(self, slices: List[Tensor], scores: Tensor, hints: Tensor) -> Tensor:
        """Return what is to be added to the margin, (B, Q, H', W') at the finest level used.

        Args:
            slices: edge, low, middle and high-level features of B slices, (B, C, h, w) each.
            scores: scaled cosines to background and foreground, (B, Q, 2, h, w).
            hints: earlier probabilities of foreground, (B, Q, 2, h, w).
        """
        b, q = scores.shape[0], scores.shape[1]
        scores, hints = scores.flatten(0, 1), hints.flatten(0, 1)
        inside = torch.sigmoid(scores[:, 1:] - scores[:, :1])  # (B * Q, 1, h, w)
        front, back = self.split(slices[2]).repeat_interleave(q, 0).chunk(2, 1)
        front, back = front * inside, back * (1 - inside)
        weight = 1 + 4 * inside * (1 - inside)
        low: Optional[Tensor] = None
        edge: Optional[Tensor] = None
        if self.low is not None and self.edge is not None:
            low = self.low(slices[1]).repeat_interleave(q, 0)
            low = low * resize_logits(weight, (low.shape[-2], low.shape[-1]))
            edge = self.edge(slices[0]).repeat_interleave(q, 0)
            edge = edge * resize_logits(weight, (edge.shape[-2], edge.shape[-1]))
        margins = torch.cat([front, back, scores, hints], 1)
        for path in self.paths:
            margins = path(margins, slices[3], low, edge)
        return margins.reshape([b, q, margins.shape[-2], margins.shape[-1]])


class _Path(nn.Module):
    """From the middle level to the finest level that is used."""

    def __init__(
        self,
        own: int,
        high: int,
        high_width: int,
        low_width: int,
        edge_width: int,
        widths: Sequence[int],
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.reduce = nn.Conv2d(high, high_width, 1) if high > 0 else None
        self.shared = nn.Conv2d(high_width, first, 3, padding=1, bias=False) if high > 0 else None
        self.own = nn.Conv2d(own + 4, first, 3, padding=1, bias=False)
        self.norm = group_norm(first)
        self.body = double_conv(first + low_width, second)
        self.finest: Optional[nn.Sequential] = None
        if edge_width > 0:
            self.finest = double_conv(second + edge_width, third)
        self.last = nn.Conv2d(third if edge_width > 0 else second, 1, 1, bias=False)
        # the untrained decoder adds nothing to the prototypes' map
        nn.init.zeros_(self.last.weight)

    def forward(
        self, own: Tensor, high: Tensor, low: Optional[Tensor], edge: Optional[Tensor]
    ) -> Tensor:
        x = self.own(own)
        if self.reduce is not None and self.shared is not None:
            shared = self.shared(self.reduce(high))
            # each slice's map is added to those of its Q pairs
            x = (x.unflatten(0, [shared.shape[0], -1]) + shared.unsqueeze(1)).flatten(0, 1)
        x = F.relu(self.norm(x))
        if low is not None:
            x = torch.cat([resize_logits(x, (low.shape[-2], low.shape[-1])), low], 1)
        x = self.body(x)
        if edge is not None and self.finest is not None:
            x = resize_logits(x, (edge.shape[-2], edge.shape[-1]))
            x = self.finest(torch.cat([x, edge], 1))
        return self.last(x).squeeze(1)
