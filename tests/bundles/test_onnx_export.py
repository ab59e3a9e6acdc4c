"""MONAI's ONNX export of a bundle with its shipped weights and default support."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundle_folders import export_arguments, shipped_network
from monai.bundle import onnx_export

pytest.importorskip("onnx", reason="onnx is not installed (pip install -e .[dev])")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIDE = 64
# as in the bundles' pages
CONVERTER = {
    "dynamo": False,
    "input_names": ["image"],
    "output_names": ["pred"],
    "dynamic_axes": {"image": {0: "batch"}, "pred": {0: "batch"}},
}


@pytest.mark.slow
@torch.no_grad()
def test_equals_the_network(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx_export(
        **export_arguments(bundle, path),
        use_trace=True,
        input_shape=[1, 1, SIDE, SIDE],
        converter_kwargs=CONVERTER,
    )
    network = shipped_network(bundle)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        image = torch.randn(batch, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))
        expected = network(image)
        (found,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-3)
