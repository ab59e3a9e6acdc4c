"""Weights on disk: read as plain tensors, checked against the network, never unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError, exit_on_data_error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict with ``weights_only=True``.

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
    return state


def differing_entries(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of entries that only one of the two has, or that have another shape."""
    own = network.state_dict()
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
    return wrong + [k for k in state if k not in own]


def fill_network(network: nn.Module, path: str | Path) -> None:
    """Load weights into a network, every one of them.

    Raises:
        DataError: the file cannot be used, or belongs to another network.
    """
    state = read_state_dict(path)
    wrong = differing_entries(network, state)
    if wrong:
        raise DataError(
            f"{path}: these weights belong to another network ({len(wrong)} entries differ, the "
            f"first is '{wrong[0]}'); name weights of this bundle and the same --encoder."
        )
    network.load_state_dict(state)


@exit_on_data_error
def load_weights(network: nn.Module, path: str | Path) -> None:
    """`fill_network` for configs.

    Raises:
        SystemExit: the file cannot be used, or belongs to another network.
    """
    fill_network(network, path)


@exit_on_data_error
def load_initial_weights(network: nn.Module, initial_weights: str, bundle_root: str | Path) -> None:
    """Begin a training from ``none``, from the ``shipped`` weights or from a file.

    With the encoder ``resnet101`` a file may be torchvision's ``deeplabv3_resnet101`` checkpoint;
    its backbone is taken.

    Raises:
        SystemExit: the file cannot be used.
    """
    if initial_weights == "none":
        return
    if initial_weights == "shipped":
        load_weights(network, Path(bundle_root) / "models" / "model.pt")
        return
    state = read_state_dict(initial_weights)
    load_torchvision = getattr(getattr(network, "encoder", None), "load_torchvision", None)
    if load_torchvision is not None and any(k.startswith("backbone.") for k in state):
        try:
            load_torchvision(state)
        except ValueError as error:
            raise DataError(f"{initial_weights}: {error}.") from error
        return
    load_weights(network, initial_weights)
