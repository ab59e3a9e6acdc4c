"""Values that a MONAI Label server puts into a config: numbers and names, never code.

MONAI evaluates text of a config that begins with `$`, and the server writes what a client sent into
the config of a training as it came. The bundle asks here before any of it is evaluated.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from fsmis_components.data.safe_text import parse_json

_MAX_EPOCHS = "train#trainer#max_epochs"
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_WRITTEN_BY_SERVER = "monailabel_train.json"  # a copy of the config with a client's values in it


class CodeInRequest(RuntimeError):
    """A client sent what only the owner of a config may write; it was not evaluated."""


def refuse_code_of_requests(bundle_root: Path) -> None:
    """Check what a server's client can set in the config that is being evaluated.

    Numbers of epochs and devices that are text to be evaluated, and weights that do not lie in the
    bundle's `models`, are a `CodeInRequest`. In a process that serves no studies nothing is
    checked: the config and its overrides are those of the person who runs it.
    """
    parser = _evaluated_config() if os.environ.get("MONAI_LABEL_STUDIES") else None
    if parser is None:
        return
    epochs = parser.get(_MAX_EPOCHS, 1)
    if isinstance(epochs, str) and not re.fullmatch(r"@\w+", epochs):
        raise CodeInRequest("max_epochs: expected a whole number.")
    device = parser.get("device", "cpu")
    foreign = isinstance(device, str) and not _DEVICE.fullmatch(device)
    if foreign and device not in _own_devices(bundle_root):
        raise CodeInRequest("device: expected cpu, cuda or cuda:0.")
    models = (bundle_root / "models").resolve()
    handlers = parser.get("train#handlers")
    for handler in handlers if isinstance(handlers, list) else []:
        path = handler.get("load_path") if isinstance(handler, dict) else None
        if isinstance(path, str) and os.path.isabs(path) and Path(path).resolve().parent != models:
            raise CodeInRequest("model_filename: expected a file name of the bundle's models.")


def _evaluated_config() -> ConfigParser | None:
    # a config cannot hand itself to what it names: values would be evaluated on the way
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    return None


def _own_devices(bundle_root: Path) -> Iterator[Any]:
    for path in (bundle_root / "configs").glob("*.json"):
        if path.name != _WRITTEN_BY_SERVER:
            config = parse_json(path.read_text(encoding="utf-8"))
            yield config.get("device") if isinstance(config, dict) else None
