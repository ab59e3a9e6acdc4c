"""Inputs of the tests of prototype similarity."""

import torch

from fsmis_components.ops import prototype_similarity

B, N, P, C, H, W = 2, 3, 5, 19, 17, 33
BACKENDS = ["reference", "streamed"]


def draw(shape, *, seed, device, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def inputs(
    device, *, space=(H, W), num_prototypes=P, shared=False, valid=None, dtype=torch.float64
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
    return arguments


def single(device, **changes):
    """Inputs of one prototype for each structure."""
    return inputs(device, **changes, num_prototypes=1)


def cast(arguments, dtype):
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in arguments.items()}


def twisted(arguments):
    """Return the inputs, each with strides of another order of its axes."""
    result = {
        "query": arguments["query"].movedim(1, 3).contiguous().movedim(3, 1),
        "prototypes": arguments["prototypes"].transpose(2, 3).contiguous().transpose(2, 3),
        "valid": arguments["valid"].transpose(0, 2).contiguous().transpose(0, 2),
    }
    assert not any(tensor.is_contiguous() for tensor in result.values())
    return result


def with_gradients(arguments, **settings):
    """Return the result and gradients by name, for a fixed weighting of the result."""
    arguments = {
        name: tensor.detach().clone().requires_grad_(tensor.is_floating_point())
        for name, tensor in arguments.items()
    }
    result = prototype_similarity(**arguments, **settings)
    weights = draw(result.shape, seed=4, device=result.device).to(result.dtype)
    (result * weights).sum().backward()
    return result.detach(), {
        name: tensor.grad for name, tensor in arguments.items() if tensor.requires_grad
    }
