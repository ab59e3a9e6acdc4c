"""Seeds for the random draws of a method, made of what is drawn from."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def draw_seeds(images: Tensor, masks: Tensor) -> Tensor:
    """Return a seed for each labelled slice: a hash of its pixels and of the structure's mask.

    The same labelled slice has the same seed whatever its file is called and whatever other
    slices, structures and scans come with it, so a network that draws at random answers alike.

    Args:
        images: normalised slices before any padding, (S, 1, H, W).
        masks: 1 inside the structure, 0 outside, (S, N, H, W).

    Returns:
        int64 in [0, 2**63), (S, N).
    """
    pixels = images.float().cpu().numpy().astype("<f4")
    inside = masks.to(torch.uint8).cpu().numpy()
    seeds = torch.empty(masks.shape[:2], dtype=torch.int64)
    for s, structures in enumerate(inside):
        of_slice = hashlib.sha256(pixels[s].tobytes())
        for n, mask in enumerate(structures):
            digest = of_slice.copy()
            digest.update(mask.tobytes())
            seeds[s, n] = int.from_bytes(digest.digest()[:8], "big") >> 1
    return seeds
