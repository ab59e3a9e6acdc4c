"""By what a network is known to those that keep what it computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

TORCH = "torch"


def computed_by(network: nn.Module, amp: bool) -> dict[str, Any]:
    """How a network computes, as JSON values: its results differ a little by it."""
    engine = str(getattr(getattr(_unwrapped(network), "encoder", None), "engine", TORCH))
    return {"amp": amp} if engine == TORCH else {"amp": amp, "engine": engine}


def network_method(network: nn.Module) -> str:
    """The class name of a network, under any distributed wrapper."""
    return type(_unwrapped(network)).__name__


def network_settings(network: nn.Module) -> dict[str, Any]:
    """Settings of a network that shape its support state, from its `support_settings()`."""
    describe = getattr(_unwrapped(network), "support_settings", None)
    # through JSON, so that tuples compare equal to what a file gives back
    return json.loads(json.dumps(describe())) if callable(describe) else {}


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a network's state, sorted by name."""
    return state_hash(_unwrapped(network).state_dict())


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """The `weights_hash` of a network with these weights."""
    digest = hashlib.sha256()
    digest_tensors(digest, state)
    return digest.hexdigest()


def digest_tensors(digest: hashlib._Hash, tensors: Mapping[str, torch.Tensor]) -> None:
    """Add tensors to a digest, as `weights_hash` does."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # as bytes: NumPy has no bfloat16
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)


def _unwrapped(network: nn.Module) -> nn.Module:
    if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return network.module
    return network
