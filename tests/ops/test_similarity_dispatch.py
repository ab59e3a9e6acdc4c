import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from similarity_samples import B, C, H, N, P, W, with_gradients

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


def test_memory_of_streamed_is_independent_of_prototypes(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "_SIDE_CPU", 128)
    channels, length = 4, 1024
    whole_map = 4096 * length * 4

    def peak(num_prototypes: int, backend: str) -> int:
        arguments = {
            "query": torch.rand(1, channels, length),
            "prototypes": torch.rand(1, 1, num_prototypes, channels),
            "valid": torch.rand(1, 1, num_prototypes) < 0.9,
        }
        return peak_bytes(lambda: with_gradients(arguments, backend=backend), tmp_path)

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
    ("backend", "own", "num_prototypes", "streams"),
    [
        ("auto", False, P, False),
        ("auto", False, 900, True),
        ("auto", True, 900, False),
        # a backend that is named never declines for size
        ("streamed", True, 1, True),
        ("reference", False, 900, False),
    ],
)
def test_auto_streams_large_maps_that_it_can(backend, own, num_prototypes, streams, monkeypatch):
    """An error inside a backend also is not hidden."""
    monkeypatch.setattr(streamed, "forward", fail)
    n = N if own else 1
    tensors = torch.rand(B, C, H, W), torch.rand(1, n, num_prototypes, C)
    if streams:
        with pytest.raises(Reached):
            prototype_similarity(*tensors, backend=backend)
    else:
        assert prototype_similarity(*tensors, backend=backend).shape == (B, n, H, W)


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
        ({"query": torch.rand(B, C)}, ValueError, r"query \(B, C, \*space\).*got query \(2, 19\)"),
        ({"prototypes": torch.rand(B + 1, N, P, C)}, ValueError, r"prototypes \(3, 3, 5, 19\)"),
        ({"prototypes": torch.rand(1, N, 0, C)}, ValueError, "P > 0"),
        ({"valid": torch.ones(1, P, N) > 0}, ValueError, r"valid \(1, 5, 3\)"),
        ({"valid": torch.ones(1, N, P)}, TypeError, r"valid \(1, 3, 5\) torch.float32"),
        ({"query": torch.ones(B, C, H, W).long()}, TypeError, "floating point.* torch.int64"),
        ({"scale": float("nan")}, ValueError, "scale > 0 and eps > 0, got nan and 0.0001"),
        ({"eps": 0.0}, ValueError, "scale > 0 and eps > 0, got 20.0 and 0.0"),
        ({"backend": "cuda"}, ValueError, "backend auto, .*streamed or reference, got 'cuda'"),
    ],
)
def test_rejects(changes, error, message):
    arguments = {"query": torch.rand(B, C, H, W), "prototypes": torch.rand(1, N, P, C)}
    with pytest.raises(error, match="prototype_similarity: expected .*" + message):
        prototype_similarity(**{**arguments, **changes})
