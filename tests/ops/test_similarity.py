import math

import pytest
import torch
from similarity_samples import (
    BACKENDS,
    N,
    P,
    cast,
    inputs,
    twisted,
    with_gradients,
)
from tolerances import GRADIENT_TOLERANCES, TOLERANCES

from fsmis_components.ops import prototype_similarity


def assert_gradients_close(gradients, expected, dtype=torch.float64):
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient,
            expected[name],
            **GRADIENT_TOLERANCES[dtype],
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_values(backend, device):
    # two orthogonal positions; prototypes of other lengths along them, a third is not valid
    query = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]], device=device)
    prototypes = torch.tensor([[[[2.0, 0.0], [0.0, 7.0], [1.0, 1.0]]]], device=device)
    valid = torch.tensor([[[True, True, False]]], device=device)
    result = prototype_similarity(query, prototypes, valid, scale=math.log(3), backend=backend)
    # at the first position s = (log 3, 0), so that the weights are 3/4 and 1/4
    torch.testing.assert_close(result.flatten().cpu(), torch.full((2,), 0.75 * math.log(3)))


@pytest.mark.parametrize("sharing", [1, N])
def test_below_eps_a_length_is_a_constant(sharing, device, small_tiles):
    arguments = inputs(device, space=(3, 5), valid="shared")
    arguments["prototypes"] = arguments["prototypes"][:, :sharing].clone()
    arguments["query"][0, :, 0] *= 1e-3
    arguments["query"][1, :, 1, 1] = 0.0
    arguments["prototypes"][:, :, :3] *= 1e-3
    settings = {"eps": 0.05}
    expected = with_gradients(arguments, **settings, backend="reference")[1]
    gradients = with_gradients(arguments, **settings, backend="streamed")[1]
    assert gradients["query"].abs().max() > 100
    assert_gradients_close(gradients, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_valid_prototype(backend, device, small_tiles):
    arguments = inputs(device, space=(3, 5), valid="own")
    arguments["valid"][0] = False
    result, gradients = with_gradients(arguments, scale=7.0, backend=backend)
    assert result[0].eq(0).all()
    assert result[1, 1].eq(0).all()
    assert result[1, 0].ne(0).any()
    assert gradients["query"][0].eq(0).all()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("num_prototypes", [1, P, 83])
@pytest.mark.parametrize("valid", [None, "own", "shared", "rare"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_streamed_matches_reference(shared, valid, num_prototypes, device, small_tiles):
    sizes = {"space": (3, 5), "num_prototypes": num_prototypes, "shared": shared}
    arguments = inputs(device, **sizes, valid=valid)
    expected, expected_gradients = with_gradients(arguments, backend="reference")
    result, gradients = with_gradients(arguments, backend="streamed")
    torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
    assert_gradients_close(gradients, expected_gradients)


@pytest.mark.parametrize("scale", [20.0, 100.0])
@pytest.mark.parametrize("num_prototypes", [1, 8])
@pytest.mark.parametrize("valid", ["own", "shared", "rare"])
@pytest.mark.parametrize("one_support", [False, True])
def test_structures_that_share_their_prototypes(
    one_support, valid, num_prototypes, scale, device, small_tiles
):
    """One set with the validity of each structure equals a copy of the set for each of them."""
    sizes = {"space": (3, 5), "num_prototypes": num_prototypes, "shared": one_support}
    arguments = inputs(device, **sizes, valid=valid)
    one = arguments["prototypes"][:, :1]
    settings = {"scale": scale}
    copies = {**arguments, "prototypes": one.expand(-1, N, -1, -1)}
    expected, expected_gradients = with_gradients(copies, **settings, backend="reference")
    expected_gradients["prototypes"] = expected_gradients["prototypes"].sum(1, keepdim=True)
    for backend in BACKENDS:
        result, gradients = with_gradients(
            {**arguments, "prototypes": one}, **settings, backend=backend
        )
        torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
        assert_gradients_close(gradients, expected_gradients)


def test_shared_prototypes_in_float32_at_true_tiles(device):
    """Half of the prototypes look like the query and are not valid: they must not drown others."""
    arguments = inputs(device, space=(40, 40), num_prototypes=600, shared=True, valid="own")
    arguments["prototypes"] = arguments["prototypes"][:, :1].clone()
    arguments["prototypes"][0, 0, :300] = arguments["query"][0, :, 0, 0]
    arguments["valid"][0, 0] = torch.arange(600, device=device) >= 300
    expected = prototype_similarity(**arguments, backend="reference")
    result = prototype_similarity(**cast(arguments, torch.float32), backend="streamed")
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_matches_float64(backend, shared, device):
    """Tiles of true size join slices of the batch; the scale is too large without a shift."""
    arguments = inputs(device, num_prototypes=40, shared=shared, valid="own")
    scale = 100.0
    settings = {"scale": scale}
    expected, expected_gradients = with_gradients(arguments, **settings, backend="reference")
    result, gradients = with_gradients(cast(arguments, torch.float32), **settings, backend=backend)
    torch.testing.assert_close(
        result.double() / scale, expected / scale, **TOLERANCES[torch.float32]
    )
    assert_gradients_close(
        {name: gradient.double() / scale for name, gradient in gradients.items()},
        {name: gradient / scale for name, gradient in expected_gradients.items()},
        torch.float32,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_summed_in_float32(dtype, backend, device):
    arguments = inputs(device, valid="own", dtype=dtype)
    arguments["query"] = arguments["query"] * 300  # its square exceeds the range of float16
    exact = cast(arguments, torch.float64)
    expected = prototype_similarity(**exact, backend="reference")
    result = prototype_similarity(**arguments, backend=backend)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_inputs(backend, device, small_tiles):
    arguments = inputs(device, valid="own")
    expected, expected_gradients = with_gradients(arguments, backend=backend)
    result, gradients = with_gradients(twisted(arguments), backend=backend)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradients, expected_gradients)
