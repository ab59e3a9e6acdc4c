"""MSMF: the many similarity maps of one class become one map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.precision import to_compute_dtype

SCALE = 20.0  # of the cosines, in CoW's fallback


class MapFusion(nn.Module):
    """Decoder of multiple similarity maps fusion (CoW, Jiang & Zhang, IJCAI 2025).

    Its first layer is a 1x1 convolution over the cosine maps of all prototypes. That is linear, so
    it is taken on the support's side: the prototypes, made unit vectors, are mixed by its weights,
    and the query is multiplied with `width` mixed vectors. The maps themselves never exist and
    the cost of a query does not depend on the number of prototypes. No biases, no norm layers.

    Args:
        num_maps: prototypes of the class; 102 and 602 in the paper.
        width: channels inside; 100 and 600 in the paper.
        guided_init: begin as the scaled mean of the maps, see :class:`MeanFusion`. Else the layers
            begin at random, as in the released code.
    """

    def __init__(self, num_maps: int, width: int, guided_init: bool = False) -> None:
        super().__init__()
        self.mixing = nn.Conv2d(num_maps, width, 1, bias=False)
        self.residual1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.residual2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.body = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.drop = nn.Dropout2d(0.2)  # as in the paper
        self.last = nn.Conv2d(width, 1, 1, bias=False)
        if guided_init:
            self._guide()

    def mix(self, prototypes: Tensor) -> Tensor:
        """Return mixed vectors (..., width, C) of prototypes (..., num_maps, C), float32."""
        with torch.autocast(prototypes.device.type, enabled=False):
            return self._mix(prototypes)

    def forward(self, maps: Tensor) -> Tensor:
        """Return one unbounded map (K, h, w) of mixed similarity maps (K, width, h, w)."""
        x = F.relu(maps)
        x = x + F.relu(self.residual2(F.relu(self.residual1(x))))
        x = self.drop(F.relu(self.body(x)))
        return self.last(x).squeeze(1)

    def _guide(self) -> None:
        """Let pairs of channels carry the mean of a group of maps and its negative."""
        width, num_maps = self.mixing.weight.shape[:2]
        groups = max(1, width // 2)
        means = F.adaptive_avg_pool1d(torch.eye(num_maps), groups).transpose(0, 1)
        signs = torch.cat([torch.ones(groups), -torch.ones(width - groups)])
        pairs = torch.cat([means, means])[:width] if width > 1 else means
        with torch.no_grad():
            self.mixing.weight.copy_((SCALE * signs[:, None] * pairs)[..., None, None])
            self.residual2.weight.mul_(0.1)
            self.body.weight.mul_(0.1)
            self.body.weight[:, :, 1, 1] += torch.eye(width)
            self.last.weight.copy_((signs / groups).reshape(1, width, 1, 1))

    def _mix(self, prototypes: Tensor) -> Tensor:
        unit = unit_vectors(prototypes)
        return torch.matmul(self.mixing.weight.flatten(1).to(unit), unit)


class MeanFusion(nn.Module):
    """The mean of the cosine maps times a scale: what is left without a decoder, for ablations."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = SCALE

    def mix(self, prototypes: Tensor) -> Tensor:
        """Return one vector (..., 1, C) of prototypes (..., num_maps, C), float32."""
        return self.scale * unit_vectors(prototypes).mean(-2, keepdim=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the map (K, h, w) of maps (K, 1, h, w)."""
        return maps.squeeze(1)


def unit_vectors(vectors: Tensor, dim: int = -1, eps: float = 1e-8) -> Tensor:
    """Return vectors along `dim` with unit length, float32; a zero vector stays zero."""
    return F.normalize(to_compute_dtype(vectors), dim=dim, eps=eps)
