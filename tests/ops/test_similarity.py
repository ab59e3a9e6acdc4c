import copy
import math

import pytest
import torch
from similarity_samples import (
    BACKENDS,
    REDUCTIONS,
    B,
    H,
    N,
    P,
    V,
    W,
    draw,
    inputs,
    twisted,
    with_gradients,
)
from tolerances import GRADIENT_TOLERANCES, TOLERANCES

from fsmis_components.ops import prototype_similarity


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


@pytest.mark.parametrize("scale", [20.0, 100.0])
@pytest.mark.parametrize("num_prototypes", [1, 8])
@pytest.mark.parametrize("valid", ["own", "shared", "rare"])
@pytest.mark.parametrize("one_support", [False, True])
@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_structures_that_share_their_prototypes(
    reduction, with_values, one_support, valid, num_prototypes, scale, device, small_tiles
):
    """One set with the validity of each structure equals a copy of the set for each of them."""
    sizes = {"space": (3, 5), "num_prototypes": num_prototypes, "shared": one_support}
    arguments = inputs(device, **sizes, valid=valid, with_values=with_values)
    one = arguments["prototypes"][:, :1]
    settings = {"reduction": reduction, "scale": scale}
    copies = {**arguments, "prototypes": one.expand(-1, N, -1, -1)}
    expected, expected_gradients = with_gradients(copies, **settings, backend="reference")
    expected_gradients["prototypes"] = expected_gradients["prototypes"].sum(1, keepdim=True)
    for backend in BACKENDS:
        result, gradients = with_gradients(
            {**arguments, "prototypes": one}, **settings, backend=backend
        )
        torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected_gradients[name], **GRADIENT_TOLERANCES[torch.float64]
            )


def test_shared_prototypes_in_float32_at_true_tiles(device):
    """Half of the prototypes look like the query and are not valid: they must not drown others."""
    arguments = inputs(device, space=(40, 40), num_prototypes=600, shared=True, valid="own")
    arguments["prototypes"] = arguments["prototypes"][:, :1].clone()
    arguments["prototypes"][0, 0, :300] = arguments["query"][0, :, 0, 0]
    arguments["valid"][0, 0] = torch.arange(600, device=device) >= 300
    expected = prototype_similarity(**arguments, backend="reference")
    rounded = {k: v.float() if v.is_floating_point() else v for k, v in arguments.items()}
    result = prototype_similarity(**rounded, backend="streamed")
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)


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
    strided = twisted(arguments)
    torch.testing.assert_close(prototype_similarity(**strided, backend=backend), expected)
    torch.testing.assert_close(with_gradients(strided, backend=backend)[1], expected_gradients)


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
