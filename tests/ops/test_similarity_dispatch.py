import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from similarity_samples import B, C, H, N, P, W, cast, inputs, with_gradients

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import streamed


def peak_bytes(work, folder: Path) -> int:
    """Return the largest sum of memory that was held at once while work() ran."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        work()
    trace = folder / "trace.json"
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    steps = [event for event in events if event["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(steps, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("train", [False, True], ids=["forward", "backward"])
def test_memory_of_streamed_is_independent_of_prototypes(train, tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "_TILE_CPU", 2**15)
    monkeypatch.setattr(streamed, "_POSITIONS", 256)
    channels, length = 4, 1024
    whole_map = 4096 * length * 4

    def peak(num_prototypes: int, backend: str) -> int:
        arguments = {
            "query": torch.rand(1, channels, length),
            "prototypes": torch.rand(1, 1, num_prototypes, channels),
            "valid": torch.rand(1, 1, num_prototypes) < 0.9,
        }
        solve = with_gradients if train else lambda x, **more: prototype_similarity(**x, **more)
        return peak_bytes(lambda: solve(arguments, backend=backend), tmp_path)

    few, many = peak(256, "streamed"), peak(4096, "streamed")
    # copies of the prototypes themselves, their unit vectors and gradients are not temporary
    operands = 4096 * (channels + 1) * 4
    assert many < 1.5 * few + 8 * operands < whole_map / 5
    assert peak(4096, "reference") > whole_map  # the measure sees the map where there is one


class Reached(Exception):
    pass


def fail(*arguments):
    raise Reached


@pytest.mark.parametrize(
    ("backend", "num_prototypes", "streams"),
    [
        ("auto", P, False),
        ("auto", 900, True),
        # a backend that is named never declines for size
        ("streamed", 1, True),
        ("reference", 900, False),
    ],
)
def test_auto_streams_large_maps_only(backend, num_prototypes, streams, monkeypatch):
    """An error inside a backend also is not hidden."""
    monkeypatch.setattr(streamed, "forward", fail)
    tensors = torch.rand(B, C, H, W), torch.rand(1, N, num_prototypes, C)
    if streams:
        with pytest.raises(Reached):
            prototype_similarity(*tensors, backend=backend)
    else:
        assert prototype_similarity(*tensors, backend=backend).shape == (B, N, H, W)


def test_importing_loads_neither_triton_nor_the_compiler():
    code = """
import sys, warnings, torch
warnings.simplefilter("error")
before = set(sys.modules)
import fsmis_components.ops.similarity
costly = ("triton", "torch._dynamo", "torch._inductor")
new = [name for name in set(sys.modules) - before if name.startswith(costly)]
assert not new, new
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": torch.rand(B, C)}, ValueError, r"query of shape \(B, C, \*space\).*\(2, 19\)"),
        (
            {"prototypes": torch.rand(B, P, C)},
            ValueError,
            r"of shape \(B or 1, N or 1, P, C\) = \(2 or 1, N, P, 19\), got \(2, 5, 19\)",
        ),
        ({"prototypes": torch.rand(1, N, P, C + 1)}, ValueError, r"got \(1, 3, 5, 20\)"),
        ({"prototypes": torch.rand(B + 1, N, P, C)}, ValueError, r"got \(3, 3, 5, 19\)"),
        ({"prototypes": torch.rand(1, N, 0, C)}, ValueError, "at least one prototype"),
        (
            {"valid": torch.ones(1, P, N, dtype=torch.bool)},
            ValueError,
            r"valid of shape \(B or 1, N, P\) = \(2 or 1, 3, 5\), got \(1, 5, 3\)",
        ),
        ({"valid": torch.ones(N, P, dtype=torch.bool)}, ValueError, r"got \(3, 5\)"),
        ({"valid": torch.ones(1, N, P)}, TypeError, "valid of dtype bool, got torch.float32"),
        ({"query": torch.ones(B, C, H, W).long()}, TypeError, "floating point query"),
        ({"scale": float("nan")}, ValueError, "scale > 0 and eps > 0, got nan and 0.0001"),
        ({"eps": 0.0}, ValueError, "scale > 0 and eps > 0, got 20.0 and 0.0"),
        ({"backend": "cuda"}, ValueError, "backend auto, .*streamed or reference, got 'cuda'"),
    ],
)
def test_rejects(changes, error, message):
    arguments = {"query": torch.rand(B, C, H, W), "prototypes": torch.rand(1, N, P, C)}
    with pytest.raises(error, match="prototype_similarity: expected .*" + message):
        prototype_similarity(**{**arguments, **changes})


class Segmenter(torch.nn.Module):
    """Calls the operator as networks do."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend

    def forward(
        self, query: torch.Tensor, prototypes: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        return prototype_similarity(query, prototypes, valid, 10.0, backend=self.backend)


def uses_an_operator_of_ours(graph_module: torch.fx.GraphModule) -> bool:
    graphs = [part.graph for part in graph_module.modules() if hasattr(part, "graph")]
    targets = [str(node.target) for graph in graphs for node in graph.nodes]
    assert any("matmul" in target or "bmm" in target for target in targets)
    return any("fsmis_components" in target for target in targets)


@pytest.mark.parametrize("backend", ["auto", "streamed"])  # by name, reference all the same
def test_traces_and_exports(backend):
    def sample(**space):
        drawn = inputs(torch.device("cpu"), valid="own", **space)
        return tuple(cast(drawn, torch.float32).values())

    tensors = sample()
    expected = Segmenter("reference")(*tensors)
    segmenter = Segmenter(backend)
    for strict in (False, True):
        exported = torch.export.export(segmenter, tensors, strict=strict)
        torch.testing.assert_close(exported.module()(*tensors), expected)
        assert not uses_an_operator_of_ours(exported.graph_module)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(segmenter, tensors)
    torch.testing.assert_close(traced(*tensors), expected)
    assert "fsmis_components::" not in str(traced.inlined_graph)
    # the trace is no trace of one size
    more = sample(space=(H + 2, W + 3))
    torch.testing.assert_close(traced(*more), Segmenter("reference")(*more))
