"""MONAI's TorchScript export of a bundle with its shipped weights and default support."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundle_folders import build_network
from monai.bundle import ckpt_export

from fsmis_components.data.weights import load_weights
from fsmis_components.support import stored_state


@pytest.mark.slow
@torch.no_grad()
def test_equals_the_network(bundle: Path, tmp_path: Path) -> None:
    weights = bundle / "models" / "model.pt"
    path = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=str(weights),
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
    )
    support = stored_state(bundle / "models" / "support_pack.safetensors")
    network = build_network(bundle, stored_support=support).eval()
    load_weights(network, weights)
    exported = torch.jit.load(str(path))
    for height, width in ((64, 64), (48, 80)):  # any size, other than ONNX
        for batch in (1, 3):
            seeded = torch.Generator().manual_seed(batch)
            image = torch.randn(batch, 1, height, width, generator=seeded)
            torch.testing.assert_close(exported(image), network(image), rtol=0, atol=1e-3)
