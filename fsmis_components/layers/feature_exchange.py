"""Optional exchange between features: query cells attend to cells of the support slice."""

import torch.nn.functional as F
from torch import Tensor, nn


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
