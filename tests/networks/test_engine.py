"""Engines compute what PyTorch computes, of any size, and never with former weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from network_samples import episode

from fsmis_components import load_bundle
from fsmis_components.data.errors import DataError
from fsmis_components.encoding.engine import use_engine
from fsmis_components.encoding.identity import computed_by, weights_hash
from fsmis_components.inferers import VolumeInferer

ROOT = Path(__file__).parents[2]


# IPSNet uses all levels of the encoder, the others the last
@pytest.mark.parametrize(
    ("method", "engine"), [("ssl_alpnet", "openvino"), ("ipsnet", "onnxruntime")]
)
def test_logits_as_by_pytorch_of_any_size(method: str, engine: str) -> None:
    pytest.importorskip(engine, reason=f"{engine} is not installed (pip install -e .[dev])")
    network = load_bundle(ROOT / "bundles" / method).network.eval()
    episodes = [episode(size=size) for size in (64, 80)]
    for each in episodes:
        del each["label"]
    kept = weights_hash(network)
    with torch.inference_mode():
        expected = [network(**each) for each in episodes]
        use_engine(network, engine)
        found = [network(**each) for each in episodes]
    for one, other in zip(found, expected, strict=True):
        assert not torch.equal(one, other)  # the engine did compute it
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert weights_hash(network) == kept
    assert computed_by(network, False) == {"amp": False, "engine": engine}


def test_other_weights_are_exported_anew() -> None:
    engine = "onnxruntime"
    pytest.importorskip(engine, reason=f"{engine} is not installed (pip install -e .[dev])")
    network = load_bundle(ROOT / "bundles" / "ssl_alpnet").network.eval()
    image = torch.randn(1, 1, 64, 64)
    use_engine(network, engine)
    with torch.no_grad():
        network.encode(image)  # exports
        network.load_state_dict({k: 0.9 * v for k, v in network.state_dict().items()})
        expected = load_bundle(ROOT / "bundles" / "ssl_alpnet").network.eval()
        expected.load_state_dict(network.state_dict())
        loaded = network.encode(image).high
        torch.testing.assert_close(loaded, expected.encode(image).high, atol=1e-3, rtol=0)
        network.train().encode(torch.randn(2, 1, 64, 64))  # moves the statistics of batch norm
        expected.load_state_dict(network.state_dict())
        trained = network.eval().encode(image).high
        torch.testing.assert_close(trained, expected.encode(image).high, atol=1e-3, rtol=0)
    assert not torch.allclose(loaded, trained, atol=1e-2)


def test_bfloat16_by_openvino() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (pip install -e .[dev])")
    network = load_bundle(ROOT / "bundles" / "ssl_alpnet").network.eval()
    image = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        expected = network.encode(image).high
        use_engine(network, "openvino", amp=True)
        with torch.autocast("cpu", torch.bfloat16):
            found = network.encode(image).high
    # bfloat16 keeps two to three digits; machines without it compute in float32
    assert torch.nn.functional.cosine_similarity(found, expected, dim=1).min() > 0.99


@pytest.mark.slow
def test_compiled() -> None:
    bundle = load_bundle(ROOT / "bundles" / "ssl_alpnet")
    network, image = bundle.network.eval(), torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        expected = network.encode(image).high
        use_engine(network, "compile")
        torch.testing.assert_close(network.encode(image).high, expected, atol=1e-3, rtol=0)


def test_knob_of_a_bundle(phantom: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    knobs = {"spatial_size": 64, "registration": False, "fuse_planes": False}
    plain, other = (
        load_bundle(ROOT / "bundles" / "ssl_alpnet", **knobs, engine=engine)
        for engine in ("torch", "onnxruntime")
    )
    pack = plain.support(phantom / "support")
    scan = next((phantom / "query").glob("*.nii.gz"))
    expected, found = (bundle.segment(scan, pack).label for bundle in (plain, other))
    assert (expected != found).mean() < 1e-3
    assert expected.any()
    kept = VolumeInferer(pack)
    assert kept.settings(plain.network) != kept.settings(other.network)


def test_what_does_not_serve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"expected one of torch, compile, .*got 'tensorrt'"):
        load_bundle(ROOT / "bundles" / "ssl_alpnet", engine="tensorrt")
    with pytest.raises(DataError, match="computes in float32; leave --amp out"):
        load_bundle(ROOT / "bundles" / "ssl_alpnet", engine="onnxruntime", amp=True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DataError, match=r"needs openvino; .*fsmis-components\[engines\]"):
        load_bundle(ROOT / "bundles" / "ssl_alpnet", engine="openvino")
