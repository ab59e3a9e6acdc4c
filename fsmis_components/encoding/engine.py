"""Engines: what computes a network's encoder in place of PyTorch's operators one by one."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsmis_components.data.errors import DataError, exit_on_data_error, needed
from fsmis_components.encoding.identity import TORCH

Run = Callable[[Tensor], Sequence[Tensor]]


@exit_on_data_error
def use_engine(network: nn.Module, engine: str = TORCH, amp: bool = False) -> None:
    """Let an engine compute the encoder of a network in evaluation mode.

    The encoder is exported when it is first used, and again after other weights were loaded or
    trained; training computes as ever, and the network's state is untouched. Heads stay with
    PyTorch. An engine that is unknown, lacks something or does not serve here ends the command.

    Args:
        network: of the contract, with an `encoder`.
        engine: "torch" (nothing changes), "compile" (`torch.compile`, which needs a C++ compiler),
            "onnxruntime" or "openvino" (both on the CPU, by an ONNX export).
        amp: whether the network is called under bfloat16 autocast.
    """
    if engine == TORCH:
        return
    if engine not in _ENGINES:
        known = ", ".join((TORCH, *_ENGINES))
        raise DataError(f"--engine: expected one of {known}, got {engine!r}; write one of them.")
    encoder: Any = network.encoder
    if engine != "compile":
        for package in ("onnx", engine):
            needed(
                package,
                f"--engine {engine}: needs {package}; install the extra by 'pip install "
                "fsmis-components[engines]', or leave --engine out.",
            )
        if next(encoder.parameters()).device.type != "cpu":
            raise DataError(f"--engine {engine}: computes on the CPU; take compile on a GPU.")
    if engine == "onnxruntime" and amp:
        raise DataError("--engine onnxruntime: computes in float32; leave --amp out.")
    encoder.forward = _EngineForward(encoder, partial(_ENGINES[engine], amp=amp))
    encoder.engine = engine


class _EngineForward:
    """The forward of an encoder that an engine computes; `make` builds the engine of it."""

    def __init__(self, encoder: Any, make: Callable[[Any], Run]) -> None:
        # of the class: an encoder that has an engine already gets another one
        self.plain = partial(type(encoder).forward, encoder)
        self.encoder = encoder
        self.make = make
        self.run: Run | None = None
        self.kind: Any = None
        encoder.register_load_state_dict_post_hook(self.forget)

    def __call__(self, image: Tensor) -> Any:
        if self.encoder.training:
            self.forget()
            return self.plain(image)
        if self.run is None:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
                self.kind = type(self.plain(torch.zeros_like(image[:1])))
                self.run = self.make(_Levels(self.plain, self.encoder))
        return self.kind(*self.run(image))

    def forget(self, *_: object) -> None:
        """Build the engine anew when it is used next: the weights are others."""
        self.run = None


class _Levels(nn.Module):
    """An encoder whose levels come as a plain tuple, which exports know."""

    def __init__(self, forward: Run, encoder: nn.Module) -> None:
        super().__init__()
        self.plain = forward
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.plain(image))


def _compiled(levels: _Levels, amp: bool) -> Run:
    compiled = torch.compile(levels)

    def run(image: Tensor) -> Sequence[Tensor]:
        try:
            return compiled(image)
        except Exception as error:  # its back ends fail in any way, such as without a compiler
            reason = str(error).strip().partition("\n")[0]
            raise DataError(
                f"--engine compile: torch.compile failed ({reason}); leave --engine out."
            ) from error

    return run


def _onnxruntime(levels: _Levels, amp: bool) -> Run:
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(_onnx(levels), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {"image": _array(image)})]

    return run


def _openvino(levels: _Levels, amp: bool) -> Run:
    core = importlib.import_module("openvino").Core()
    properties = {
        "INFERENCE_PRECISION_HINT": "bf16" if amp else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # several processes of a machine would share one core
    }
    compiled = core.compile_model(core.read_model(_onnx(levels)), "CPU", properties)

    def run(image: Tensor) -> Sequence[Tensor]:
        found = compiled([_array(image)])
        return [torch.from_numpy(np.array(found[output])) for output in compiled.outputs]

    return run


def _array(image: Tensor) -> np.ndarray:
    return image.detach().contiguous().numpy()


_ENGINES = {"compile": _compiled, "onnxruntime": _onnxruntime, "openvino": _openvino}


def _onnx(levels: _Levels) -> bytes:
    """The encoder as an ONNX model of slices (B, 1, H, W) of any number and size."""
    size = 4 * int(levels.encoder.pad_multiple)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "encoder.onnx"
        # the export by torch.export needs onnxscript; this one is to be deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            levels.eval(),
            (torch.zeros(2, 1, size, size),),
            str(path),
            dynamo=False,
            input_names=["image"],
            dynamic_axes={"image": {0: "batch", 2: "height", 3: "width"}},
        )
        return path.read_bytes()
