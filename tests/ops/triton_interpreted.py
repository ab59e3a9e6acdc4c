"""The Triton kernels against the definition in float64: on a CPU in Triton's interpreter.

The interpreter takes the place of the compiler when Triton is imported, for the whole process.
`test_triton_backend` therefore runs this file in a process of its own.
"""

import numpy as np
import pytest
import torch
from similarity_samples import B, N, P, draw, inputs, twisted
from tolerances import GRADIENT_TOLERANCES, TOLERANCES
from triton.runtime import interpreter

from fsmis_components.ops import prototype_similarity
from fsmis_components.ops.similarity import triton_backend
from fsmis_components.ops.similarity.reference import similarity_by_definition

EPS = 1e-4
SPACE = (3, 7)
# several blocks along every axis; one block holds all channels, or several do
SIZES = {"BLOCK_L": 16, "BLOCK_P": 16, "BLOCK_C": 32, "num_warps": 4, "num_stages": 2}
WHOLE = (SIZES, 32)
CHUNKS = ({**SIZES, "BLOCK_P": 32, "BLOCK_C": 16}, 16)
# gradients of half operands: of the largest, because terms of a sum are rounded
HALF = {torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def interpreted(device, monkeypatch):
    """Run on a CPU with small tiles; on a GPU as everywhere."""
    if device.type != "cpu":
        return
    monkeypatch.setattr(triton_backend, "_INTERPRETED", True)
    use(WHOLE, monkeypatch)
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
    sizes, columns = tile
    of_gradient = {**sizes, "BLOCK_D": columns}
    monkeypatch.setattr(
        triton_backend,
        "tile_of",
        lambda dtype, channels=None: sizes if channels is None else of_gradient,
    )


def by_definition(arguments, scale=20.0):
    """Return the result (B, N, L), its gradients by name, and the gradient that went in."""
    exact = {
        name: arguments[name].detach().double().requires_grad_() for name in ("query", "prototypes")
    }
    result = similarity_by_definition(*exact.values(), arguments.get("valid"), scale, EPS).flatten(
        2
    )
    grad = draw(result.shape, seed=4, device=result.device)
    gradients = torch.autograd.grad(result, list(exact.values()), grad)
    return result.detach(), dict(zip(exact, gradients, strict=True)), grad


def by_kernels(arguments, grad, scale=20.0):
    """Return the result, and the gradients by name."""
    query = arguments["query"]
    operands = (query.flatten(2), arguments["prototypes"], arguments.get("valid"))
    settings = (scale, EPS)
    reduced, kept = triton_backend.forward(*operands, *settings)
    gradients = triton_backend.backward(grad.float(), *operands, reduced, kept, *settings)
    return reduced, {"query": gradients[0].view(query.shape), "prototypes": gradients[1]}


def check(arguments, scale=20.0, size=1.0):
    """Compare results, and gradients of about this size; return them."""
    expected, expected_gradients, grad = by_definition(arguments, scale)
    result, gradients = by_kernels(arguments, grad, scale)
    larger = max(1.0, scale / 20.0)  # scores, and gradients of unit vectors
    torch.testing.assert_close(
        result.double() / larger, expected / larger, **TOLERANCES[torch.float32]
    )
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(
            gradients[name].double() / larger / size,
            gradient / larger / size,
            **GRADIENT_TOLERANCES[torch.float32],
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )
    return result, gradients


def sample(device, **changes):
    settings = {"space": SPACE, "num_prototypes": 20, "valid": "own", "dtype": torch.float32}
    return inputs(device, **{**settings, **changes})


@pytest.mark.parametrize(
    ("num_prototypes", "valid", "shared", "tile"),
    [
        (1, None, True, WHOLE),
        (P, "own", False, CHUNKS),
        (20, None, False, WHOLE),
        (40, "rare", True, CHUNKS),
    ],
)
def test_matches_reference(num_prototypes, valid, shared, tile, device, monkeypatch):
    if device.type == "cpu":
        use(tile, monkeypatch)
    check(sample(device, num_prototypes=num_prototypes, valid=valid, shared=shared))


def test_structures_that_share_their_prototypes(device):
    arguments = sample(device)
    arguments["prototypes"] = arguments["prototypes"][:, :1].clone()
    check(arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_operands(dtype, device):
    arguments = sample(device, dtype=dtype)
    arguments["query"] = arguments["query"] * 300  # its square exceeds the range of float16
    expected, expected_gradients, grad = by_definition(arguments)
    small = 2.0**-12  # times a weight, float16 does not hold it
    result, gradients = by_kernels(arguments, grad * small)
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[dtype])
    for name, gradient in expected_gradients.items():
        error = (gradients[name].double() - gradient * small).abs().max()
        assert error <= HALF[dtype] * small * gradient.abs().max(), name


def test_without_a_valid_prototype(device):
    result, gradients = check(sample(device), scale=7.0)  # structure 1 has none
    assert result[:, 1].eq(0).all()
    assert gradients["prototypes"][:, 1].eq(0).all()


def test_strided_operands_at_a_scale_too_large_without_a_running_maximum(device):
    check(twisted(sample(device)), scale=100.0)


def test_short_vectors_are_divided_by_eps(device):
    arguments = sample(device)
    arguments["query"][0, :, 0] *= 1e-6
    arguments["query"][1, :, 1] = 0.0
    arguments["prototypes"][0, 0, :3] *= 1e-6
    _, gradients = check(arguments, size=1 / EPS)
    assert all(gradient.abs().max() > 1e3 for gradient in gradients.values())


def test_through_the_public_function(device):
    arguments = sample(device)
    expected, expected_gradients, grad = by_definition(arguments)
    query, prototypes = (arguments[name].requires_grad_() for name in ("query", "prototypes"))
    result = prototype_similarity(query, prototypes, arguments["valid"], backend="triton")
    assert result.shape == (B, N, *SPACE)
    result.backward(grad.float().unflatten(-1, SPACE))
    torch.testing.assert_close(result.flatten(2).double(), expected, **TOLERANCES[torch.float32])
    for tensor, gradient in zip((query, prototypes), expected_gradients.values(), strict=True):
        torch.testing.assert_close(
            tensor.grad.double(), gradient, **GRADIENT_TOLERANCES[torch.float32]
        )
