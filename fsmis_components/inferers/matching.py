"""Which support slices answer for which query slice."""

from __future__ import annotations

from typing import Protocol

import torch

from fsmis_components.support.sections import NUM_SECTIONS


class SectionMatching(Protocol):
    """A label-blind rule that gives each query slice its support slices."""

    def __call__(self, depth: int, sections: torch.Tensor) -> torch.Tensor:
        """Return section weights (D, N, S) >= 0 of a query volume of D slices.

        Args:
            depth: number of query slices D.
            sections: bool (N, S, 3) of the support pack.
        """
        ...


def spread_thirds(depth: int, sections: torch.Tensor) -> torch.Tensor:
    """Spread the three support sections over the whole query volume.

    Query slice z takes section floor(3 z / depth) for every structure, so it is right only where a
    structure fills the scan as it fills the support; nothing is ever called absent.

    Args:
        depth: number of query slices D.
        sections: bool (N, S, 3) of the support pack.

    Returns:
        Weights (D, N, S), 0 or 1.
    """
    thirds = torch.arange(depth) * NUM_SECTIONS // depth
    return section_weights(thirds[:, None].expand(-1, sections.shape[0]), sections)


def section_weights(chosen: torch.Tensor, sections: torch.Tensor) -> torch.Tensor:
    """Weights that let the chosen section of each structure answer.

    Args:
        chosen: section 0, 1 or 2 per query slice and structure, (D, N); -1: absent there.
        sections: bool (N, S, 3) of the support pack.

    Returns:
        Weights (D, N, S), 0 or 1; all zero where the structure is absent.
    """
    wanted = chosen[..., None] == torch.arange(NUM_SECTIONS)  # (D, N, 3)
    return (sections[None] & wanted[:, :, None]).any(-1).float()
