import copy
import json
import math
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tolerances import GRADIENT_TOLERANCES, TOLERANCES

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import dispatch, reference, streamed
from fsmis_components.ops.similarity.problem import SimilarityProblem

B, N, P, C, V, H, W = 2, 3, 5, 19, 4, 17, 33
BACKENDS = ["reference", "streamed"]
# reduction, and whether prototypes carry values
REDUCTIONS = [
    ("softmax", False),
    ("softmax", True),
    ("max", False),
    ("max", True),
    ("logsumexp", False),
]


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that the sizes of the tests need several along every axis."""
    monkeypatch.setattr(streamed, "_TILE_CPU", 40)
    monkeypatch.setattr(streamed, "_TILE_DEVICE", 40)
    monkeypatch.setattr(streamed, "_POSITIONS", 4)
    monkeypatch.setattr(streamed, "_PROTOTYPES", 3)


def draw(shape, *, seed, device, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def inputs(
    device,
    *,
    space=(H, W),
    num_prototypes=P,
    shared=False,
    valid=None,
    with_values=False,
    dtype=torch.float64,
):
    """Draw inputs; valid is None, "own" (per query), "shared" or "rare" (shared, few)."""
    batch = 1 if shared else B
    arguments = {
        "query": draw((B, C, *space), seed=0, device=device, dtype=dtype),
        "prototypes": draw((batch, N, num_prototypes, C), seed=1, device=device, dtype=dtype),
    }
    if valid is not None:
        share = 0.15 if valid == "rare" else 0.6
        chosen = draw((B if valid == "own" else 1, N, num_prototypes), seed=2, device=device)
        # rank, so that a share is a share whatever was drawn
        chosen = chosen.argsort(-1).argsort(-1) < share * num_prototypes
        chosen[:, 1] = False  # a structure without any prototype
        arguments["valid"] = chosen
    if with_values:
        arguments["values"] = draw((batch, N, num_prototypes, V), seed=3, device=device).to(dtype)
    return arguments


def with_gradients(arguments, forward_under=nullcontext(), **settings):  # noqa: B008
    """Return the result and gradients by name, for a fixed weighting of the result."""
    arguments = {
        name: tensor.detach().clone().requires_grad_(tensor.is_floating_point())
        for name, tensor in arguments.items()
    }
    with forward_under:
        result = prototype_similarity(**arguments, **settings)
    weights = draw(result.shape, seed=4, device=result.device).to(result.dtype)
    (result * weights).sum().backward()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in arguments.items()}
    gradients = {
        name: zeros[name] if tensor.grad is None else tensor.grad
        for name, tensor in arguments.items()
        if tensor.requires_grad
    }
    return result.detach(), gradients


@pytest.mark.parametrize("space", [(W,), (H, W), (5, 7, 3)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes(backend, space, device):
    arguments = inputs(device, space=space, valid="own")
    for reduction in ("softmax", "max", "logsumexp"):
        result = prototype_similarity(**arguments, reduction=reduction, backend=backend)
        assert result.shape == (B, N, *space)
    arguments["values"] = draw((1, N, P, V), seed=3, device=device)
    assert prototype_similarity(**arguments, backend=backend).shape == (B, N, V, *space)


@pytest.mark.parametrize("space", [(W,), (H, W), (5, 7, 3)], ids=str)
def test_shape_without_reduction(space, device):
    result = prototype_similarity(**inputs(device, space=space, shared=True), reduction="none")
    assert result.shape == (B, N, P, *space)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("reduction", "values", "expected"),
    [
        # at the first position s = (log 3, 0), so that the weights are 3/4 and 1/4
        ("softmax", None, [0.75 * math.log(3), 0.25 * math.log(3) * 3]),
        ("softmax", [10.0, 2.0], [8.0, 4.0 + 4.0]),
        ("max", None, [math.log(3), math.log(3)]),
        ("max", [10.0, 2.0], [10.0, 2.0]),
        ("logsumexp", None, [math.log(4), math.log(4)]),
    ],
)
def test_values(backend, reduction, values, expected, device):
    # two orthogonal positions; prototypes of other lengths along them, a third is not valid
    query = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]], device=device)
    prototypes = torch.tensor([[[[2.0, 0.0], [0.0, 7.0], [1.0, 1.0]]]], device=device)
    valid = torch.tensor([[[True, True, False]]], device=device)
    stands_for = None
    if values is not None:
        # at the second position the weights are the other way round: 1/4 and 3/4
        expected = [expected[0], 0.25 * 10 + 0.75 * 2 if reduction == "softmax" else expected[1]]
        stands_for = torch.tensor([*values, 1e6], device=device).reshape(1, 1, 3, 1)
    result = prototype_similarity(
        query,
        prototypes,
        valid=valid,
        values=stands_for,
        reduction=reduction,
        scale=math.log(3),
        backend=backend,
    )
    torch.testing.assert_close(result.flatten().cpu(), torch.tensor(expected))


def test_values_without_reduction(device):
    query = torch.tensor([[[3.0], [4.0]]], device=device)
    prototypes = torch.tensor([[[[1.0, 0.0], [0.0, -2.0], [1.0, 1.0]]]], device=device)
    valid = torch.tensor([[[True, True, False]]], device=device)
    result = prototype_similarity(query, prototypes, valid=valid, reduction="none", scale=10.0)
    torch.testing.assert_close(result.flatten().cpu(), torch.tensor([6.0, -8.0, 0.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_vectors_are_divided_by_eps(backend, device):
    query = torch.tensor([[[1e-3], [0.0]]], device=device)
    prototypes = torch.tensor([[[[1.0, 0.0]]]], device=device)
    result = prototype_similarity(query, prototypes, scale=20.0, eps=1e-2, backend=backend)
    torch.testing.assert_close(result.flatten().cpu(), torch.tensor([2.0]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_without_a_valid_prototype(backend, reduction, with_values, device, small_tiles):
    arguments = inputs(device, space=(3, 5), valid="own", with_values=with_values)
    arguments["valid"][0] = False
    result, gradients = with_gradients(arguments, reduction=reduction, scale=7.0, backend=backend)
    empty = 0.0 if reduction == "softmax" or with_values else -7.0
    assert result[0].eq(empty).all()
    assert result[1, 1].eq(empty).all()
    assert result[1, 0].ne(empty).any()
    assert gradients["query"][0].eq(0).all()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_invalid_prototypes_have_no_say(backend, device):
    arguments = inputs(device, valid="own")
    expected = prototype_similarity(**arguments, backend=backend)
    chosen = arguments["valid"].unsqueeze(-1)
    arguments["prototypes"] = torch.where(chosen, arguments["prototypes"], 1e6)
    torch.testing.assert_close(prototype_similarity(**arguments, backend=backend), expected)


@pytest.mark.parametrize("num_prototypes", [1, P, 83])
@pytest.mark.parametrize("valid", [None, "own", "shared", "rare"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_streamed_matches_reference(
    reduction, with_values, shared, valid, num_prototypes, device, small_tiles
):
    arguments = inputs(
        device,
        space=(3, 5),
        num_prototypes=num_prototypes,
        shared=shared,
        valid=valid,
        with_values=with_values,
    )
    expected, expected_gradients = with_gradients(
        arguments, reduction=reduction, backend="reference"
    )
    result, gradients = with_gradients(arguments, reduction=reduction, backend="streamed")
    torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient,
            expected_gradients[name],
            **GRADIENT_TOLERANCES[torch.float64],
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_float32_matches_float64(backend, reduction, with_values, shared, device):
    """Tiles of true size join slices of the batch; the scale is too large without a shift."""
    arguments = inputs(
        device, num_prototypes=40, shared=shared, valid="own", with_values=with_values
    )
    settings = {"reduction": reduction, "scale": 100.0}
    expected, expected_gradients = with_gradients(arguments, **settings, backend="reference")
    rounded = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in arguments.items()
    }
    result, gradients = with_gradients(rounded, **settings, backend=backend)
    scale = settings["scale"]
    torch.testing.assert_close(
        result.double() / scale, expected / scale, **TOLERANCES[torch.float32]
    )
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient.double() / scale,
            expected_gradients[name] / scale,
            **GRADIENT_TOLERANCES[torch.float32],
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_summed_in_float32(dtype, reduction, with_values, backend, device):
    arguments = inputs(device, valid="own", with_values=with_values, dtype=dtype)
    arguments["query"] = arguments["query"] * 300  # its square exceeds the range of float16
    exact = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in arguments.items()
    }
    expected = prototype_similarity(**exact, reduction=reduction, backend="reference")
    result = prototype_similarity(**arguments, reduction=reduction, backend=backend)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend, device):
    arguments = inputs(device, valid="own", dtype=torch.float32)
    expected, expected_gradients = with_gradients(arguments, backend=backend)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16)
    result, gradients = with_gradients(arguments, autocast, backend=backend)
    with autocast:
        half = prototype_similarity(
            **{**arguments, "query": arguments["query"].bfloat16()}, backend=backend
        )
    assert half.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=0)


def test_autocast_does_not_reach_the_streamed_backward(device):
    arguments = inputs(device, valid="own", dtype=torch.float32)
    expected = with_gradients(arguments, backend="streamed")[1]
    with torch.autocast(device.type, dtype=torch.bfloat16):
        gradients = with_gradients(arguments, backend="streamed")[1]
    torch.testing.assert_close(gradients, expected, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_inputs(backend, device, small_tiles):
    arguments = inputs(device, valid="own", with_values=True)
    expected, expected_gradients = with_gradients(arguments, backend=backend)
    twisted = {
        "query": arguments["query"].movedim(1, 3).contiguous().movedim(3, 1),
        "prototypes": arguments["prototypes"].transpose(0, 3).contiguous().transpose(0, 3),
        "valid": arguments["valid"].transpose(0, 2).contiguous().transpose(0, 2),
        "values": arguments["values"].transpose(1, 2).contiguous().transpose(1, 2),
    }
    assert not any(tensor.is_contiguous() for tensor in twisted.values())
    torch.testing.assert_close(prototype_similarity(**twisted, backend=backend), expected)
    torch.testing.assert_close(with_gradients(twisted, backend=backend)[1], expected_gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_stay_as_they_were(backend, device):
    arguments = inputs(device, shared=True, valid="rare", with_values=True, num_prototypes=40)
    before = copy.deepcopy(arguments)
    with_gradients(arguments, backend=backend)
    torch.testing.assert_close(arguments, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("backend", "reduction", "with_values"),
    [
        *((backend, *reduction) for backend in BACKENDS for reduction in REDUCTIONS),
        ("reference", "none", False),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_gradients(reduction, with_values, shared, backend, device, small_tiles):
    arguments = inputs(
        device, space=(6,), num_prototypes=7, shared=shared, valid="own", with_values=with_values
    )
    floating = [name for name in arguments if name != "valid"]
    tensors = [arguments[name].requires_grad_() for name in floating]

    def solve(*tensors):
        return prototype_similarity(
            **dict(zip(floating, tensors, strict=True)),
            valid=arguments["valid"],
            reduction=reduction,
            scale=3.0,
            backend=backend,
        )

    assert torch.autograd.gradcheck(solve, tensors, fast_mode=True)


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
            r"prototypes of shape \(B or 1, N, P, C\) = \(2 or 1, N, P, 19\), got \(2, 5, 19\)",
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
        ({"backend": "triton3"}, ValueError, "backend auto, streamed or reference, got 'triton3'"),
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
    torch.testing.assert_close(torch.export.export(segmenter, tensors).module()(*tensors), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(segmenter, tensors)
    torch.testing.assert_close(traced(*tensors), expected)
    # the trace is no trace of one size
    more = inputs(torch.device("cpu"), space=(H + 2, W + 3), valid="own").values()
    more = [tensor.float() if tensor.is_floating_point() else tensor for tensor in more]
    torch.testing.assert_close(traced(*more), Segmenter(reduction, "reference")(*more))


def test_a_script_rejects_too():
    scripted = torch.jit.script(Segmenter("softmax", "auto"))
    with pytest.raises(torch.jit.Error, match=r"prototypes of shape .* got \(1, 3, 5, 20\)"):
        scripted(torch.rand(B, C, H, W), torch.rand(1, N, P, C + 1), torch.ones(1, N, P).bool())
