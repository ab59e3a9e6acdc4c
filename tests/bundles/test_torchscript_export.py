"""MONAI's TorchScript export of a bundle with its shipped weights and default support."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundle_folders import export_arguments, shipped_network
from monai.bundle import ckpt_export


@pytest.mark.slow
@torch.no_grad()
def test_equals_the_network(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    ckpt_export(**export_arguments(bundle, path))
    network = shipped_network(bundle)
    exported = torch.jit.load(str(path))
    for height, width in ((64, 64), (48, 80)):  # any size, other than ONNX
        for batch in (1, 3):
            seeded = torch.Generator().manual_seed(batch)
            image = torch.randn(batch, 1, height, width, generator=seeded)
            torch.testing.assert_close(exported(image), network(image), rtol=0, atol=1e-3)
