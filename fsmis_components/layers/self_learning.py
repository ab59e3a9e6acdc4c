"""Decoder of IPSNet: separated features of a query and its low-level maps become the mask."""

from typing import List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.deep_module import double_conv, group_norm
from fsmis_components.layers.resize import resize_logits

SEPARATIONS = ("masks", "dual")
LOW_LEVELS = ("none", "low", "both")


class SelfLearningDecoder(nn.Module):
    """Corrects the prototypes' answer with features that are separated by this answer.

    IPS-style, reconstructed from the abstract of Song et al. (Artif. Intell. Med. 2025): it says
    that foreground and background are separated at the feature level and that low-level maps bring
    the boundary in. What all structures and supports of a slice share is convolved once for the
    slice: a convolution is linear, and so is its sum over groups of channels.

    Args:
        channels: of the edge, low, middle and high-level features.
        split_width: channels of each separated map; 128 in our specification.
        widths: channels at the middle, the low and the edge level; 256, 128 and 64.
        low_level: ``both``, ``low`` (without the edge level) or ``none``.
        gate: low-level maps count up to twice where the answer is undecided.
        separation: ``masks``, or ``dual``: foreground and background are decoded apart.

    Raises:
        ValueError: an unknown option, or not three widths.
    """

    def __init__(
        self,
        channels: Sequence[int],
        split_width: int = 128,
        widths: Sequence[int] = (256, 128, 64),
        low_level: str = "both",
        gate: bool = True,
        separation: str = "masks",
    ) -> None:
        super().__init__()
        if separation not in SEPARATIONS or low_level not in LOW_LEVELS:
            raise ValueError(
                f"SelfLearningDecoder: expected separation in {SEPARATIONS} and low_level in "
                f"{LOW_LEVELS}, got {separation!r} and {low_level!r}"
            )
        if len(widths) != 3:
            raise ValueError(f"SelfLearningDecoder: expected three widths, got {list(widths)}")
        edge, low, mid, high = channels
        self.split = nn.Conv2d(mid, 2 * split_width, 1)
        self.gate = gate
        self.low: Optional[nn.Conv2d] = None
        self.edge: Optional[nn.Conv2d] = None
        # the 48 channels are DeepLabV3+'s (Chen et al., ECCV 2018), for 128 behind them
        low_width = max(8, widths[1] * 3 // 8) if low_level != "none" else 0
        edge_width = widths[2] // 2 if low_level == "both" else 0
        if low_level != "none":
            self.low = nn.Conv2d(low, low_width, 1)
        if low_level == "both":
            self.edge = nn.Conv2d(edge, edge_width, 1)
        own = [2 * split_width] if separation == "masks" else [split_width, split_width]
        self.paths = nn.ModuleList(
            _Path(number, high, split_width, low_width, edge_width, widths) for number in own
        )
        self.dual = separation == "dual"

    def forward(
        self,
        slices: List[Tensor],
        answer: Tensor,
        hints: Tensor,
    ) -> Tensor:
        """Return what is to be added to the margin, (B, Q, H', W') at the finest level used.

        Args:
            slices: edge, low, middle and high-level features of B slices, (B, C, h, w) each.
            answer: scaled cosines to background and foreground, (B, Q, 2, h, w).
            hints: earlier probabilities of foreground, (B, Q, 2, h, w).
        """
        b, q = answer.shape[0], answer.shape[1]
        answer, hints = answer.flatten(0, 1), hints.flatten(0, 1)
        inside = torch.sigmoid(answer[:, 1:] - answer[:, :1])  # (B * Q, 1, h, w)
        front, back = self.split(slices[2]).repeat_interleave(q, 0).chunk(2, 1)
        front, back = front * inside, back * (1 - inside)
        weight = 1 + 4 * inside * (1 - inside) if self.gate else torch.ones_like(inside)
        low: Optional[Tensor] = None
        edge: Optional[Tensor] = None
        if self.low is not None:
            low = self.low(slices[1]).repeat_interleave(q, 0)
            low = low * resize_logits(weight, (low.shape[-2], low.shape[-1]))
        if self.edge is not None:
            edge = self.edge(slices[0]).repeat_interleave(q, 0)
            edge = edge * resize_logits(weight, (edge.shape[-2], edge.shape[-1]))
        given = [torch.cat([front, back], 1)] if not self.dual else [front, back]
        margins = torch.zeros(1, device=answer.device)
        for i, path in enumerate(self.paths):
            decoded = path(torch.cat([given[i], answer, hints], 1), slices[3], low, edge)
            margins = margins + decoded if i == 0 else margins - decoded
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
        # the untrained decoder adds nothing to the prototypes' answer
        nn.init.zeros_(self.last.weight)

    def forward(
        self,
        own: Tensor,
        high: Tensor,
        low: Optional[Tensor],
        edge: Optional[Tensor],
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
