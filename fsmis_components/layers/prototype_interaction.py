"""Interactive prototype learning: prototypes of support and query meet, those of classes part."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.layers.map_fusion import unit_vectors
from fsmis_components.ops.precision import to_compute_dtype

HEADS = 4
# share of the likeness to the other class that is taken away at first; each layer learns its own
GAMMA = 0.1


class PrototypeInteraction(nn.Module):
    """Exchange between the four prototypes of a pair: two classes, each of support and query.

    IPS-style, reconstructed from the abstract of Song et al., Artif. Intell. Med. 2025, which asks
    for more consistency within and less similarity between classes: attention among the two tokens
    of one class; :func:`suppress`; a feed-forward part for each token.

    Both learned parts stand beside the residual path and end in a projection that begins at zero:
    an untrained module is suppression alone, and with gamma 0 returns its input exactly. The type
    embeddings (which class, which side) are added to what enters the parts, behind the norm, and
    never to the residual path: so they cannot move a prototype by themselves, and the identity
    remains reachable whatever they have become. They begin at zero, too; until the projections
    have left zero, only these and gamma have a gradient.

    Args:
        channels: C of the prototypes.
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
        tokens = to_compute_dtype(tokens)
        for layer in self.layers:
            tokens = layer(tokens, self.types)
        return tokens


def suppress(tokens: Tensor, gamma: Tensor) -> Tensor:
    """Return tokens less a share of what they have in common with the opposite class.

    With u the unit vector along the mean of the two tokens of the opposite class:
    ``z - gamma * max(0, cos(z, u)) * |z| * u``. That lowers cos(z, u) where it is positive and
    leaves z as it is elsewhere. A token that is parallel to u grows shorter and keeps its cosine.
    In float32 for half inputs.

    Args:
        tokens: (P, 2, 2, C) as in :class:`PrototypeInteraction`. A mean of zero has no direction
            and suppresses nothing.
        gamma: the share, a number in [0, 1].
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
