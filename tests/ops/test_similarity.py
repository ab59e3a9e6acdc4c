import math

import pytest
import torch
from similarity_samples import BACKENDS, N, P, cast, inputs, single, twisted, with_gradients
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


def one_set(device, **changes):
    """Inputs of which all structures share the prototypes."""
    arguments = inputs(device, **{"valid": "own", **changes})
    return {**arguments, "prototypes": arguments["prototypes"][:, :1].clone()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_values(backend, device):
    # two orthogonal positions; prototypes of other lengths along them, a third is not valid
    query = torch.tensor([[[5.0, 0.0], [0.0, 0.1]]], device=device)
    prototypes = torch.tensor([[[[2.0, 0.0], [0.0, 7.0], [1.0, 1.0]]]], device=device)
    valid = torch.tensor([[[True, True, False]]], device=device)
    result = prototype_similarity(query, prototypes, valid, scale=math.log(3), backend=backend)
    # at the first position s = (log 3, 0), so that the weights are 3/4 and 1/4
    torch.testing.assert_close(result.flatten().cpu(), torch.full((2,), 0.75 * math.log(3)))


@pytest.mark.parametrize("make", [one_set, single])
def test_below_eps_a_length_is_a_constant(make, device, small_tiles):
    arguments = make(device, space=(3, 5))
    arguments["query"][0, :, 0] *= 1e-3
    arguments["query"][1, :, 1, 1] = 0.0
    arguments["prototypes"][:, :, :3] *= 1e-3
    settings = {"eps": 0.05}
    expected = with_gradients(arguments, **settings, backend="reference")[1]
    gradients = with_gradients(arguments, **settings, backend="streamed")[1]
    assert gradients["query"].abs().max() > 30
    assert_gradients_close(gradients, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_valid_prototype(backend, device, small_tiles):
    arguments = one_set(device, space=(3, 5))
    arguments["valid"][0] = False
    result, gradients = with_gradients(arguments, scale=7.0, backend=backend)
    assert result[0].eq(0).all()
    assert result[1, 1].eq(0).all()
    assert result[1, 0].ne(0).any()
    assert gradients["query"][0].eq(0).all()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("num_prototypes", [1, P, 83])
@pytest.mark.parametrize("valid", [None, "own", "shared"])
@pytest.mark.parametrize("one_support", [False, True])
def test_one_set_of_prototypes(one_support, valid, num_prototypes, device, small_tiles):
    """One set with the validity of each structure equals a copy of the set for each of them."""
    sizes = {"space": (3, 5), "num_prototypes": num_prototypes, "shared": one_support}
    arguments = one_set(device, **sizes, valid=valid)
    copies = {**arguments}
    if valid is not None:
        copies["prototypes"] = arguments["prototypes"].expand(-1, N, -1, -1)
    expected, expected_gradients = with_gradients(copies, backend="reference")
    expected_gradients["prototypes"] = expected_gradients["prototypes"].sum(1, keepdim=True)
    for backend in BACKENDS:
        result, gradients = with_gradients(arguments, backend=backend)
        torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
        assert_gradients_close(gradients, expected_gradients)


@pytest.mark.parametrize("scale", [10.0, 100.0])
@pytest.mark.parametrize("one_support", [False, True])
def test_a_prototype_for_each_structure(one_support, scale, device):
    arguments = single(device, shared=one_support)
    expected, expected_gradients = with_gradients(arguments, scale=scale, backend="reference")
    result, gradients = with_gradients(arguments, scale=scale, backend="streamed")
    torch.testing.assert_close(result, expected, **TOLERANCES[torch.float64])
    assert_gradients_close(gradients, expected_gradients)


def test_float32_at_true_tiles(device):
    """Half of the prototypes look like the query and are not valid: they must not drown others."""
    arguments = one_set(device, space=(40, 40), num_prototypes=600, shared=True)
    arguments["prototypes"][0, 0, :300] = arguments["query"][0, :, 0, 0]
    arguments["valid"][0, 0] = torch.arange(600, device=device) >= 300
    expected, expected_gradients = with_gradients(arguments, backend="reference")
    result, gradients = with_gradients(cast(arguments, torch.float32), backend="streamed")
    torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)
    gradients = {name: gradient.double() for name, gradient in gradients.items()}
    assert_gradients_close(gradients, expected_gradients, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_summed_in_float32(dtype, backend, device):
    arguments = one_set(device, dtype=dtype)
    arguments["query"] = arguments["query"] * 300  # its square exceeds the range of float16
    exact = cast(arguments, torch.float64)
    expected = prototype_similarity(**exact, backend="reference")
    result = prototype_similarity(**arguments, backend=backend)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, **TOLERANCES[dtype])


@pytest.mark.parametrize("make", [one_set, single])
@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_changes_nothing(backend, make, device):
    arguments = make(device, dtype=torch.float32)
    expected, expected_gradients = with_gradients(arguments, backend=backend)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result, gradients = with_gradients(arguments, backend=backend)
        half = {**arguments, "query": arguments["query"].bfloat16()}
        assert prototype_similarity(**half, backend=backend).dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    if backend == "streamed":  # the plain form's backward pass is PyTorch's own
        torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_inputs(backend, device, small_tiles):
    arguments = one_set(device)
    expected, expected_gradients = with_gradients(arguments, backend=backend)
    result, gradients = with_gradients(twisted(arguments), backend=backend)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradients, expected_gradients)
