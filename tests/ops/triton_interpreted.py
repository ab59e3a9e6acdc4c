"""The Triton kernels against the definition in float64: on a CPU in Triton's interpreter.

The interpreter takes the place of the compiler when Triton is imported, for the whole process.
`test_triton_backend` therefore runs this file in a process of its own.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from similarity_samples import REDUCTIONS, B, C, N, P, V, draw, inputs, twisted
from tolerances import GRADIENT_TOLERANCES, TOLERANCES
from triton.runtime import interpreter

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import triton_backend, triton_launch
from fsmis_components.ops.similarity.reference import similarity_by_definition
from fsmis_components.ops.similarity.triton_launch import Tile

EPS = 1e-4
SPACE = (3, 7)
# several blocks along every axis; one block holds all channels, or several do
WHOLE = Tile(BLOCK_L=16, BLOCK_P=16, BLOCK_C=32, BLOCK_D=32, num_warps=4, num_stages=2)
CHUNKS = replace(WHOLE, BLOCK_P=32, BLOCK_C=16, BLOCK_D=16)
# gradients of half operands: of the largest, because terms of a sum are rounded
HALF = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def interpreted(device, monkeypatch):
    """Run on a CPU with small tiles and sums in short parts; on a GPU as everywhere."""
    if device.type != "cpu":
        return
    monkeypatch.setattr(triton_backend, "_INTERPRETED", True)
    use(WHOLE, monkeypatch)
    monkeypatch.setattr(triton_launch, "_PROGRAMS_PER_PROCESSOR", 10**6)
    monkeypatch.setattr(triton_launch, "_SHORTEST_PART", 20)
    monkeypatch.setattr(triton_launch, "_PART_STEP", 32)
    multiply = interpreter.InterpreterBuilder.create_dot

    def widen(handle):
        """Return bfloat16, which the interpreter would multiply as whole numbers, in float32."""
        if handle.dtype.scalar.name != "bf16":
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), interpreter.tl.float32)

    def multiply_widened(self, a, b, *rest):
        return multiply(self, widen(a), widen(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", multiply_widened)


def use(tile, monkeypatch):
    monkeypatch.setattr(triton_backend, "reduction_tiles", lambda *sizes: [tile])
    monkeypatch.setattr(triton_backend, "gradient_tiles", lambda *sizes: [tile])
    monkeypatch.setattr(triton_launch, "_CHOSEN", {})


def by_definition(arguments, reduction, scale):
    """Return the result (B, N, ..., L), its gradients by name, and the gradient that went in."""
    exact = {
        name: tensor.detach().double().requires_grad_() if name != "valid" else tensor
        for name, tensor in arguments.items()
    }
    optional = (exact.get("valid"), exact.get("values"))
    result = similarity_by_definition(
        exact["query"], exact["prototypes"], *optional, reduction, scale, EPS
    ).flatten(-2)
    grad = draw(result.shape, seed=4, device=result.device)
    names = [name for name in arguments if name != "valid"]
    gradients = torch.autograd.grad(
        result, [exact[name] for name in names], grad, materialize_grads=True
    )
    gradients = dict(zip(names, gradients, strict=True))
    gradients["query"] = gradients["query"].flatten(2)
    return result.detach(), gradients, grad


def by_kernels(arguments, grad, reduction, scale):
    """Return the result, what is kept, and the gradients by name."""
    operands = (
        arguments["query"].flatten(2),
        arguments["prototypes"],
        arguments.get("valid"),
        arguments.get("values"),
    )
    settings = (reduction, scale, EPS)
    reduced, kept = triton_backend.forward(*operands, *settings)
    gradients = triton_backend.backward(grad.float(), *operands, reduced, kept, *settings)
    return reduced, kept, dict(zip(("query", "prototypes", "values"), gradients, strict=True))


def check(arguments, reduction, scale=20.0):
    """Compare results and gradients; return these and what was kept."""
    expected, expected_gradients, grad = by_definition(arguments, reduction, scale)
    result, kept, gradients = by_kernels(arguments, grad, reduction, scale)
    size = max(1.0, scale / 20.0)  # of scores, and of gradients of unit vectors
    torch.testing.assert_close(result.double() / size, expected / size, **TOLERANCES[torch.float32])
    for name, gradient in expected_gradients.items():
        found = gradients[name]
        assert found.dtype == arguments[name].dtype and found.shape == gradient.shape
        torch.testing.assert_close(
            found.double() / size,
            gradient / size,
            **GRADIENT_TOLERANCES[torch.float32],
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )
    return result, kept, gradients


def sample(device, reduction_with_values=False, **changes):
    settings = {"space": SPACE, "num_prototypes": 40, "valid": "own", "dtype": torch.float32}
    return inputs(device, **{**settings, **changes}, with_values=reduction_with_values)


@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
@pytest.mark.parametrize(
    ("num_prototypes", "valid", "shared", "tile"),
    [
        (1, None, True, WHOLE),
        (P, "own", False, CHUNKS),
        (40, None, False, WHOLE),
        (40, "own", True, CHUNKS),
        (83, "shared", False, WHOLE),
        (83, "rare", True, CHUNKS),
    ],
)
def test_matches_reference(
    reduction, with_values, num_prototypes, valid, shared, tile, device, monkeypatch
):
    if device.type == "cpu":
        use(tile, monkeypatch)
    sizes = {"num_prototypes": num_prototypes, "valid": valid, "shared": shared}
    check(sample(device, with_values, **sizes), reduction)


@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_structures_that_share_their_prototypes(reduction, with_values, device):
    arguments = sample(device, with_values)
    arguments["prototypes"] = arguments["prototypes"][:, :1].clone()
    check(arguments, reduction)


@pytest.mark.parametrize(
    ("reduction", "with_values"), [("softmax", False), ("softmax", True), ("logsumexp", False)]
)
def test_scale_too_large_without_a_running_maximum(reduction, with_values, device):
    check(sample(device, with_values), reduction, scale=100.0)


@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS[:4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_operands(dtype, reduction, with_values, device):
    arguments = sample(device, with_values, dtype=dtype)
    arguments["query"] = arguments["query"] * 300  # its square exceeds the range of float16
    expected, expected_gradients, grad = by_definition(arguments, reduction, 20.0)
    small = 2.0**-12  # times a weight, float16 does not hold it
    result, _, gradients = by_kernels(arguments, grad * small, reduction, 20.0)
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[dtype])
    for name, gradient in expected_gradients.items():
        assert gradients[name].dtype == dtype, name
        if name == "query" and dtype == torch.float16:
            continue  # too small for float16, as its operand is so large
        error = (gradients[name].double() - gradient * small).abs().max()
        assert error <= HALF[dtype] * small * gradient.abs().max(), name


@pytest.mark.parametrize(("reduction", "with_values"), REDUCTIONS)
def test_without_a_valid_prototype(reduction, with_values, device):
    arguments = sample(device, with_values)  # structure 1 has none
    result, kept, gradients = check(arguments, reduction, scale=7.0)
    nothing = 0.0 if reduction == "softmax" or with_values else -7.0
    assert result[:, 1].eq(nothing).all()
    assert kept[:, 1].eq(-1 if reduction == "max" else -torch.inf).all()
    assert gradients["prototypes"][:, 1].eq(0).all()


def test_strided_operands(device):
    check(twisted(sample(device, True)), "softmax")


def test_short_vectors_are_divided_by_eps(device):
    arguments = sample(device)
    arguments["query"][0, :, 0] *= 1e-6
    arguments["query"][1, :, 1] = 0.0
    arguments["prototypes"][0, 0, :3] *= 1e-6
    size = EPS  # gradients of short vectors are of the size of 1 / eps
    expected, expected_gradients, grad = by_definition(arguments, "softmax", 20.0)
    result, _, gradients = by_kernels(arguments, grad, "softmax", 20.0)
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[torch.float32])
    for name, gradient in expected_gradients.items():
        assert gradient.abs().max() > 1e3
        torch.testing.assert_close(
            gradients[name].double() * size,
            gradient * size,
            **GRADIENT_TOLERANCES[torch.float32],
        )


def test_first_of_equal_prototypes_wins(device):
    arguments = sample(device, valid=None)
    arguments["prototypes"] = arguments["prototypes"][:, :, :1].repeat(1, 1, 40, 1)
    result = triton_backend.forward(
        arguments["query"].flatten(2), arguments["prototypes"], None, None, "max", 20.0, EPS
    )
    assert result[1].eq(0).all()


@pytest.mark.parametrize("reduction", ["softmax", "max", "logsumexp"])
@pytest.mark.parametrize("operand", ["query", "prototypes"])
def test_not_a_number_is_not_lost(operand, reduction, device):
    arguments = sample(device, valid=None)
    arguments[operand][0, 0, 0, 0] = torch.nan
    result, _ = triton_backend.forward(
        arguments["query"].flatten(2), arguments["prototypes"], None, None, reduction, 20.0, EPS
    )
    assert result[0, 0, 0].isnan()
    assert result[1].isfinite().all()


def test_operands_of_several_dtypes(device):
    arguments = sample(device, True)
    arguments["query"] = arguments["query"].half()
    arguments["values"] = arguments["values"].half()
    expected, _, grad = by_definition(arguments, "softmax", 20.0)
    result, _, gradients = by_kernels(arguments, grad, "softmax", 20.0)
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[torch.float32])
    assert {name: gradient.dtype for name, gradient in gradients.items()} == {
        "query": torch.float16,
        "prototypes": torch.float32,
        "values": torch.float16,
    }


def test_an_empty_batch(device):
    prototypes = torch.ones(1, N, P, C, device=device)
    query = torch.ones(0, C, 5, device=device)
    operands = (query, prototypes, None, None)
    reduced, kept = triton_backend.forward(*operands, "softmax", 20.0, EPS)
    assert reduced.shape == kept.shape == (0, N, 5)
    gradients = triton_backend.backward(reduced, *operands, reduced, kept, "softmax", 20.0, EPS)
    assert gradients[0].shape == query.shape
    assert gradients[1].eq(0).all() and gradients[1].shape == prototypes.shape


def test_through_the_public_function(device):
    arguments = sample(device, True)
    expected, expected_gradients, grad = by_definition(arguments, "softmax", 20.0)
    tensors = {
        name: tensor.requires_grad_() if name != "valid" else tensor
        for name, tensor in arguments.items()
    }
    result = prototype_similarity(**tensors, backend="triton")
    assert result.shape == (B, N, V, *SPACE)
    result.backward(grad.float().unflatten(-1, SPACE))
    torch.testing.assert_close(result.flatten(-2).double(), expected, **TOLERANCES[torch.float32])
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(
            tensors[name].grad.double().view_as(gradient),
            gradient,
            **GRADIENT_TOLERANCES[torch.float32],
        )
