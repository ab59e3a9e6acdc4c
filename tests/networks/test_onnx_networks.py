"""A network with a stored support as ONNX: a model for these structures, any batch of slices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_samples import StubEncoder, episode
from test_contract import MAKERS
from torch import nn

from fsmis_components.networks import FewShotNetwork, IPSNet

pytest.importorskip("onnx", reason="onnx is not installed (pip install -e .[dev])")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def ipsnet(encoder: nn.Module | str, **settings: object) -> IPSNet:
    """IPSNet as its bundle has it, without self-learning; parts that begin at zero answer."""
    network = IPSNet(encoder, deep_width=8, self_learning=False, **settings)  # type: ignore[arg-type]
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


EXPORTED = MAKERS | {
    "ipsnet": ipsnet,
    "ipsnet_mean": lambda encoder: ipsnet(encoder, interaction="mean"),
}


@pytest.fixture(params=sorted(EXPORTED))
def net(request: pytest.FixtureRequest) -> FewShotNetwork:
    torch.manual_seed(0)
    network = EXPORTED[request.param](StubEncoder()).eval()
    item = episode(b=1)
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    valid[0, 1, 0] = False
    with torch.no_grad():
        features = network.encode(item["support_image"][0])
        network.set_support(network.build_support(features, item["support_label"], valid))
    return network


@torch.no_grad()
def test_equals_the_network_for_any_batch(net: FewShotNetwork, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        net,
        (torch.randn(1, 1, 64, 64),),  # one slice, as MONAI's command gives: easily a constant
        str(path),
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        image = torch.randn(batch, 1, 64, 64)
        expected = net(image)
        (found,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)
