"""What 3D Slicer's MONAI Label module sends, through the client that it uses, and what it reads."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from server_process import LabelServer


@dataclass(frozen=True)
class Answer:
    """A mask (X, Y, Z) with its affine (4, 4) in RAS millimetres, and the response's params."""

    mask: np.ndarray
    affine: np.ndarray
    params: dict[str, Any]

    def dice(self, truth: np.ndarray) -> dict[int, float]:
        """Return the Dice of every value of ``truth`` (X, Y, Z)."""
        values = [int(value) for value in np.unique(truth) if value]
        return {v: _dice(self.mask == v, truth == v) for v in values}

    @property
    def values(self) -> set[int]:
        """Return the values in the mask, background left out."""
        return {int(value) for value in np.unique(self.mask)} - {0}


class Slicer:
    """The module's buttons as methods; ``model`` is the one chosen in its list."""

    def __init__(self, server: LabelServer, model: str):
        self.client = server.client
        self.model = model

    def options(self, section: str, name: str) -> dict[str, Any]:
        """Return the option panel's values: of a choice the first, as the module takes it."""
        config = self.client.info()[section][name].get("config", {})
        return {k: v[0] if isinstance(v, list) else v for k, v in config.items()}

    def next_sample(self, strategy: str = "first") -> dict[str, Any]:
        """Press Next Sample."""
        return self.client.next_sample(strategy, self.options("strategies", strategy))

    def run(
        self, image: str = "", file: Path | None = None, session: str | None = None, **params: Any
    ) -> Answer:
        """Press Run on a scan of the datastore, an uploaded file or a session."""
        params = {
            **self.options("models", self.model),
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
            **params,
        }
        written, answered = self.client.infer(
            self.model, image, params, file=file and str(file), session_id=session
        )
        mask, affine = read_mask(Path(written))
        return Answer(mask, affine, answered)

    def submit(self, image: str, label: Path, names: dict[int, str]) -> None:
        """Press Submit Label: the file, and the name of every segment with its value."""
        label_info = [{"name": name, "idx": value} for value, name in names.items()]
        self.client.save_label(image, str(label), params={"label_info": label_info})

    def train(self, seconds: float = 600, **params: Any) -> dict[str, Any]:
        """Press Train and wait until the server says that it is no longer at it."""
        self.client.train_start(self.model, {**self.options("trainers", self.model), **params})
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1)
            if not self.client.train_status(check_if_running=True):
                return self.client.train_status()
        self.client.train_stop()
        raise TimeoutError(f"training took more than {seconds} s")

    def refusal(self, *arguments: Any, **params: Any) -> tuple[int, str]:
        """Press Run where the server is to refuse: the status and the sentence that are shown."""
        from monailabel.client.client import MONAILabelClientException

        with pytest.raises(MONAILabelClientException) as caught:
            self.run(*arguments, **params)
        return read_refusal(caught.value.msg)


def read_refusal(message: str) -> tuple[int, str]:
    """Return the status and the sentence of what the client says about a refused request."""
    match = re.fullmatch(r"Status: (\d+); Response: (.*)", message, re.DOTALL)
    assert match, message
    try:
        return int(match[1]), json.loads(match[2])["detail"]
    except (json.JSONDecodeError, TypeError, KeyError):
        return int(match[1]), match[2]


def read_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask (X, Y, Z) and its affine in RAS, from NIfTI or, as the module asks, NRRD."""
    if path.suffix != ".nrrd":
        scan = nibabel.load(path)
        return np.asarray(scan.dataobj), scan.affine
    import SimpleITK  # only MONAI Label's environment has it

    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine[:3, :3] = direction * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(), np.diag([-1, -1, 1, 1]) @ affine


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / max(one.sum() + other.sum(), 1)
