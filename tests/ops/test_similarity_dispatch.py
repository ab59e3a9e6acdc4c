import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from similarity_samples import REDUCTIONS, B, C, H, N, P, V, W, inputs, with_gradients

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import dispatch, explain_backends, reference, streamed
from fsmis_components.ops.similarity.problem import SimilarityProblem


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
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_memory_of_streamed_is_independent_of_prototypes(
    reduction, with_values, train, tmp_path, monkeypatch
):
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
        if with_values:
            arguments["values"] = torch.rand(1, 1, num_prototypes, 2)
        settings = {"reduction": reduction, "backend": backend}

        def work():
            if train:
                return with_gradients(arguments, **settings)
            return prototype_similarity(**arguments, **settings)

        return peak_bytes(work, tmp_path)

    few, many = peak(256, "streamed"), peak(4096, "streamed")
    # copies of the prototypes themselves, their unit vectors and gradients are not temporary
    operands = 4096 * (channels + 2 * with_values + 1) * 4
    assert many < 1.5 * few + 8 * operands < whole_map / 5
    if reduction == "softmax":  # the measure sees the map where there is one
        assert peak(4096, "reference") > whole_map


def problem(reduction="softmax", num_prototypes=P, space=(H, W)) -> SimilarityProblem:
    query, prototypes = torch.rand(B, C, *space), torch.rand(1, N, num_prototypes, C)
    return SimilarityProblem(query, prototypes, None, None, reduction, 20.0, 1e-4)


def test_auto_streams_large_maps_only():
    assert dispatch._choose(problem(), "auto") is reference
    assert dispatch._choose(problem(num_prototypes=900), "auto") is streamed
    assert dispatch._choose(problem("none", num_prototypes=900), "auto") is reference


def test_a_named_backend_never_declines_for_size():
    assert dispatch._choose(problem(num_prototypes=1, space=(1,)), "streamed") is streamed
    assert dispatch._choose(problem(num_prototypes=9000), "reference") is reference


def test_streamed_says_why_it_cannot_run():
    message = r"backend 'streamed' cannot run query \(2, 19, 17, 33\) .*: reduction none asks"
    with pytest.raises(NotImplementedError, match=message):
        prototype_similarity(
            torch.rand(B, C, H, W), torch.rand(1, N, P, C), reduction="none", backend="streamed"
        )


def explained(*, space=(H, W), num_prototypes=900, **settings) -> dict[str, str]:
    """Return what is said of each backend, by name."""
    query, prototypes = torch.rand(B, C, *space), torch.rand(1, N, num_prototypes, C)
    first, *lines = explain_backends(query, prototypes, **settings).splitlines()
    assert first.startswith(f"query (2, 19, {space[0]}, {space[1]}) torch.float32 on cpu")
    return dict(line.split(": ", 1) for line in lines)


def test_the_explanation_names_every_backend_in_order():
    assert list(explained()) == [name for name, _ in dispatch._BACKENDS]
    assert list(explained())[-2:] == ["streamed", "reference"]


def test_the_explanation_of_a_large_map():
    said = explained()
    assert said["streamed"] == "taken"
    assert said["reference"] == "not taken: another comes before it"


def test_the_explanation_of_a_small_map():
    said = explained(num_prototypes=1)
    small = "a map of at most 32768 scores is as fast in the plain form"
    assert said["streamed"] == f"not taken: {small}"
    assert said["reference"] == "taken"


def test_the_explanation_of_a_bare_map():
    said = explained(reduction="none")
    assert said["streamed"].startswith("not taken: reduction none asks for the whole map")
    assert said["reference"] == "taken"


def test_the_explanation_follows_the_order(monkeypatch):
    monkeypatch.setattr(streamed, "unsupported_reasons", lambda problem: ["first", "second"])
    assert explained()["streamed"] == "not taken: first; second"
    assert explained()["reference"] == "taken"


def test_no_explanation_of_what_is_no_problem():
    with pytest.raises(ValueError, match="at least one prototype"):
        explained(num_prototypes=0)


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


def test_an_error_inside_a_backend_is_not_hidden(monkeypatch):
    def fail(problem):
        raise RuntimeError("broken backend")

    monkeypatch.setattr(streamed, "run", fail)
    with pytest.raises(RuntimeError, match="broken backend"):
        prototype_similarity(torch.rand(B, C, 64, 64), torch.rand(1, N, 200, C))


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
        (
            {"values": torch.rand(1, N, P)},
            ValueError,
            r"values of shape \(B or 1, N, P, V\) = \(2 or 1, 3, 5, V\), got \(1, 3, 5\)",
        ),
        ({"values": torch.ones(1, N, P, V).long()}, TypeError, "floating point values"),
        ({"values": torch.rand(1, N, P, V), "reduction": "none"}, ValueError, "no values"),
        ({"values": torch.rand(1, N, P, V), "reduction": "logsumexp"}, ValueError, "no values"),
        ({"query": torch.ones(B, C, H, W).long()}, TypeError, "floating point query"),
        ({"reduction": "mean"}, ValueError, "reduction none, softmax, max or logsumexp, got mean"),
        ({"scale": 0.0}, ValueError, "scale > 0, got 0.0"),
        ({"scale": float("nan")}, ValueError, "scale > 0, got nan"),
        ({"eps": 0.0}, ValueError, "eps > 0, got 0.0"),
        (
            {"backend": "triton3"},
            ValueError,
            r"backend auto, .*streamed or reference, got 'triton3'",
        ),
    ],
)
def test_rejects(changes, error, message):
    arguments = {"query": torch.rand(B, C, H, W), "prototypes": torch.rand(1, N, P, C)}
    with pytest.raises(error, match="prototype_similarity: expected .*" + message):
        prototype_similarity(**{**arguments, **changes})


class Segmenter(torch.nn.Module):
    """Calls the operator as networks do."""

    def __init__(self, reduction: str, backend: str) -> None:
        super().__init__()
        self.reduction = reduction
        self.backend = backend

    def forward(
        self, query: torch.Tensor, prototypes: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        return prototype_similarity(
            query,
            prototypes,
            valid=valid,
            reduction=self.reduction,
            scale=10.0,
            backend=self.backend,
        )


def uses_an_operator_of_ours(graph_module: torch.fx.GraphModule) -> bool:
    graphs = [part.graph for part in graph_module.modules() if hasattr(part, "graph")]
    targets = [str(node.target) for graph in graphs for node in graph.nodes]
    assert any("matmul" in target or "bmm" in target for target in targets)
    return any("fsmis_components" in target for target in targets)


@pytest.mark.parametrize(
    ("reduction", "backend"),
    [
        ("none", "auto"),
        ("softmax", "auto"),
        ("softmax", "streamed"),  # asked for by name, reference all the same
        ("max", "auto"),
        ("logsumexp", "auto"),
    ],
)
def test_scripts_traces_and_exports(reduction, backend):
    tensors = tuple(
        tensor.float() if tensor.is_floating_point() else tensor
        for tensor in inputs(torch.device("cpu"), valid="own").values()
    )
    expected = Segmenter(reduction, "reference")(*tensors)
    segmenter = Segmenter(reduction, backend)
    torch.testing.assert_close(torch.jit.script(segmenter)(*tensors), expected)
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
    more = inputs(torch.device("cpu"), space=(H + 2, W + 3), valid="own").values()
    more = [tensor.float() if tensor.is_floating_point() else tensor for tensor in more]
    torch.testing.assert_close(traced(*more), Segmenter(reduction, "reference")(*more))


def test_a_script_rejects_too():
    scripted = torch.jit.script(Segmenter("softmax", "auto"))
    with pytest.raises(torch.jit.Error, match=r"prototypes of shape .* got \(1, 3, 5, 20\)"):
        scripted(torch.rand(B, C, H, W), torch.rand(1, N, P, C + 1), torch.ones(1, N, P).bool())
