"""Deep encoding-decoding module of IPSNet: high-level features for peak prototypes."""

import torch
from torch import Tensor, nn

from fsmis_components.layers.resize import resize_logits

HEADS = 4  # of the self-attention; they divide the width


class DeepModule(nn.Module):
    """A small U-shaped network behind the encoder, shared by support and query.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025): it names
    a "deep encoding-decoding module" and what it is for, no layer. Two stages at half resolution
    each, self-attention at the bottom, and a decoder with skips that ends on the middle level's
    grid. The last activation is a ReLU, so that a channel's maximum is its strongest evidence.
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


def double_conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions with group norm and ReLU; the first has the stride."""
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
