"""What IPSNet convolves: the deep module behind the encoder, the decoder of the mask.

IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025).
"""

from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.resize import resize_logits

HEADS = 4  # of the self-attention; they divide the width


class DeepModule(nn.Module):
    """A small U-shaped network behind the encoder, shared by support and query.

    The abstract names a "deep encoding-decoding module" and what it is for, no layer. Two stages
    at half resolution each, self-attention at the bottom, and a decoder with skips that ends on the
    middle level's grid. After the last ReLU a channel's maximum is its strongest evidence.
    Group norm, because a batch may hold one episode.

    Args:
        top_channels: of the encoder's deepest level.
        mid_channels: of its middle level.
        width: channels of the high-level features; 256 in our specification.
    """

    def __init__(self, top_channels: int, mid_channels: int, width: int = 256) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(top_channels, width, 1), group_norm(width), nn.ReLU())
        self.unet = _Unet(mid_channels, width)

    def forward(self, top: Tensor, mid: Tensor) -> Tensor:
        """Return high-level features (B, width, h, w) >= 0.

        Args:
            top: the encoder's deepest level, (B, top_channels, h', w').
            mid: its middle level, (B, mid_channels, h, w).
        """
        return self.unet(self.reduce(top), mid)


class _Unet(nn.Module):
    def __init__(self, mid_channels: int, width: int) -> None:
        super().__init__()
        self.down1 = double_conv(width, width, 2)
        self.down2 = double_conv(width, width, 2)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.up1 = double_conv(2 * width, width)
        self.up0 = double_conv(2 * width, width)
        self.skip = nn.Conv2d(mid_channels, width // 2, 1)
        self.last = double_conv(width + width // 2, width)

    def forward(self, e0: Tensor, mid: Tensor) -> Tensor:
        e1 = self.down1(e0)
        e2 = self.down2(e1)
        e2 = e2 + self._attend(e2)
        # by size, never by a factor: 33 cells become 17
        d1 = self.up1(torch.cat([resize_logits(e2, (e1.shape[-2], e1.shape[-1])), e1], 1))
        d0 = self.up0(torch.cat([resize_logits(d1, (e0.shape[-2], e0.shape[-1])), e0], 1))
        fine = resize_logits(d0, (mid.shape[-2], mid.shape[-1]))
        return self.last(torch.cat([fine, self.skip(mid)], 1))

    def _attend(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (B, h * w, C)
        # a view, that PyTorch not take its fused self-attention, which ONNX has not
        answer = self.attention(tokens.view_as(tokens), tokens, tokens, need_weights=False)[0]
        return answer.transpose(1, 2).reshape(x.shape)


class SelfLearningDecoder(nn.Module):
    """Corrects the prototypes' map with features that are separated by this map.

    The abstract says that foreground and background are separated at the feature level and that
    low-level maps bring the boundary in. What all structures and supports of a slice share is
    convolved once: a convolution is linear, and so is its sum over groups of channels.

    Args:
        channels: of the edge, low, middle and high-level features.
        split_width: channels of each separated map.
        widths: channels at the middle, the low and the edge level.
        low_level: the low and the edge level are seen, up to twice as strongly where the map is
            undecided; False: they are not (ablation).

    Raises:
        ValueError: not three widths.
    """

    def __init__(
        self,
        channels: Sequence[int],
        split_width: int,
        widths: Sequence[int],
        low_level: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) != 3:
            raise ValueError(f"SelfLearningDecoder: expected three widths, got {list(widths)}")
        edge, low, mid, high = channels
        self.split = nn.Conv2d(mid, 2 * split_width, 1)
        self.low = self.edge = None
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
        low = edge = None
        if self.low is not None and self.edge is not None:
            low = self.low(slices[1]).repeat_interleave(q, 0)
            low = low * resize_logits(weight, (low.shape[-2], low.shape[-1]))
            edge = self.edge(slices[0]).repeat_interleave(q, 0)
            edge = edge * resize_logits(weight, (edge.shape[-2], edge.shape[-1]))
        margins = self.paths[0](torch.cat([front, back, scores, hints], 1), slices[3], low, edge)
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
        self.finest = double_conv(second + edge_width, third) if edge_width > 0 else None
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


def double_conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions; the first has the stride."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        group_norm(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
        group_norm(out_channels),
        nn.ReLU(),
    )


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of eight channels, 32 groups of 256; fewer channels than eight are one group."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
