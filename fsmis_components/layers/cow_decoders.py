"""Decoders of CoW: a slice by its own mean prototype (SSP), many maps as one map (MSMF)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsmis_components.ops.precision import unit_vectors

SCALE = 20.0  # of the cosines, in CoW's fallback


class SelfPrediction(nn.Module):
    """Decoder of support self-prediction (CoW, Jiang & Zhang, IJCAI 2025, support decoder).

    It sees the features and, twice, the prototype spread over the slice: a slot that comes from
    SCL (CVPR 2021), where the two prototypes differ. A spread prototype is constant, so its part
    of the first convolution is a matrix product; the features' part is shared by all structures.
    No batch norm; every convolution has a bias.

    Args:
        channels: C of the features; 512 in the paper.
        width: channels inside; 512 in the paper.
    """

    def __init__(self, channels: int, width: int = 512) -> None:
        super().__init__()
        self.channels = channels
        self.reach = 2  # dilation of the first convolution
        self.join = nn.Conv2d(3 * channels, width, 3, padding=2, dilation=2)
        self.drop = nn.Dropout2d(0.5)  # as in the paper
        self.residuals = nn.ModuleList([_Residual(width) for _ in range(3)])
        self.pooled = nn.Conv2d(width, width, 1)
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(width, width, 1),
                *(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (6, 12, 18)),
            ]
        )
        self.merge = nn.Conv2d(5 * width, width, 1)
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return S before any activation, (B, N, h, w).

        Args:
            features: (B, C, h, w).
            prototypes: the mean feature of each structure, (B, N, C).
        """
        b, n = prototypes.shape[0], prototypes.shape[1]
        x = self.drop(F.relu(self._join(features, prototypes)))
        for residual in self.residuals:
            x = residual(x)
        pooled = self.drop(F.relu(self.pooled(x.mean((2, 3), keepdim=True))))
        parts = [pooled.expand(-1, -1, x.shape[2], x.shape[3])]
        for branch in self.branches:
            parts.append(self.drop(F.relu(branch(x))))
        x = self.drop(F.relu(self.merge(torch.cat(parts, 1))))
        return self.last(x).reshape(b, n, features.shape[2], features.shape[3])

    def _join(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Convolve [features, prototype, prototype] of every structure, (B * N, width, h, w)."""
        b, n = prototypes.shape[0], prototypes.shape[1]
        h, w = features.shape[2], features.shape[3]
        weight = self.join.weight
        shared = F.conv2d(
            features,
            weight[:, : self.channels],
            self.join.bias,
            padding=self.reach,
            dilation=self.reach,
        )
        both = weight[:, self.channels : 2 * self.channels] + weight[:, 2 * self.channels :]
        # where a tap reaches over the border it sees zeros, not the prototype
        taps = 9
        tap = torch.eye(taps, device=features.device, dtype=features.dtype)
        ones = torch.ones([1, 1, h, w], device=features.device, dtype=features.dtype)
        reached = F.conv2d(
            ones, tap.reshape(taps, 1, 3, 3), padding=self.reach, dilation=self.reach
        ).reshape(taps, h * w)
        per_tap = torch.matmul(prototypes, both.permute(1, 0, 2, 3).flatten(1).to(prototypes))
        spread = torch.matmul(per_tap.reshape(b * n, -1, taps), reached.to(per_tap))
        joined = shared.unsqueeze(1) + spread.reshape(b, n, -1, h, w).to(shared)
        return joined.flatten(0, 1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


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
            unit = unit_vectors(prototypes)
            return torch.matmul(self.mixing.weight.flatten(1).to(unit), unit)

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
