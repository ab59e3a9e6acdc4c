"""Weights on disk: plain tensors, checked, never unpickled."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsmis_components.data.atomic import atomic_write_bytes
from fsmis_components.data.errors import DataError, exit_on_data_error

logger = logging.getLogger(__name__)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict with ``weights_only=True``; what is stored in half precision is float32.

    Raises:
        DataError: no such file, or it holds something else than a flat dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such weights file; train them with 'run training', or name another file."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind fails in the reader in any way
        first_line = str(error).partition("\n")[0]
        raise DataError(
            f"{path}: not a file of plain weights ({first_line}); save a state dict by torch.save."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: expected a state dict of tensors, got {type(state).__name__}.")
    # as a network computes, so that a file and the network that took it have one hash
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}


def write_torch(content: Mapping[str, Any], path: Path) -> Path:
    """Write tensors and plain values as PyTorch does, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return atomic_write_bytes(path, buffer.getbuffer())


def differing_entries(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of entries that only one of the two has, or that have another shape."""
    known = network.state_dict()
    wrong = [k for k in known if k not in state or state[k].shape != known[k].shape]
    return wrong + [k for k in state if k not in known]


def fill_network(network: nn.Module, path: str | Path) -> None:
    """Load all weights of a network; a file that is not of this network is a `DataError`."""
    state = read_state_dict(path)
    wrong = differing_entries(network, state)
    if wrong:
        raise DataError(
            f"{path}: these weights belong to another network ({len(wrong)} entries differ, the "
            f"first is '{wrong[0]}'); name weights of this bundle and the same --encoder."
        )
    network.load_state_dict(state)


@exit_on_data_error
def load_initial_weights(
    network: nn.Module,
    initial_weights: str,
    bundle_root: str | Path,
    encoder_is_enough: bool = False,
) -> None:
    """Begin a training from ``none``, from the ``shipped`` weights or from a file.

    Args:
        network: gets the weights.
        initial_weights: ``none``, ``shipped`` or a file; with a ResNet-101 also torchvision's
            ``deeplabv3_resnet101`` checkpoint, whose backbone is taken.
        bundle_root: has the shipped weights in ``models/model.pt``.
        encoder_is_enough: a file of another method, or of another size, gives its encoder if all of
            that fits; what else the network has begins at random, and a warning says so.

    Raises:
        SystemExit: the file cannot be used.
    """
    if initial_weights == "none":
        return
    if initial_weights == "shipped":
        fill_network(network, Path(bundle_root) / "models" / "model.pt")
        return
    state = read_state_dict(initial_weights)
    load_torchvision = getattr(getattr(network, "encoder", None), "load_torchvision", None)
    if load_torchvision and any(k.startswith("backbone.") for k in state):
        try:
            load_torchvision(state)
        except ValueError as error:
            raise DataError(f"{initial_weights}: {error}.") from error
        return
    wrong = differing_entries(network, state)
    encoder = {k: v for k, v in state.items() if k.startswith("encoder.")}
    unfit = not encoder or any(name.startswith("encoder.") for name in wrong)
    if not wrong or unfit or not encoder_is_enough:
        fill_network(network, initial_weights)
        return
    network.load_state_dict(encoder, strict=False)
    rest = len(network.state_dict()) - len(encoder)
    logger.warning("the encoder was taken from other weights; %d other entries begin anew", rest)
