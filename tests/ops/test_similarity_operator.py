import pytest
import torch
import torch.multiprocessing
from similarity_samples import draw, inputs
from tolerances import TOLERANCES

from fsmis_components.ops.similarity.operator import (
    reduced_similarity,
    reduced_similarity_backward,
)

CPU = torch.device("cpu")
SETTINGS = (3.0, 1e-4, "streamed")  # scale, eps, backend


def operands(*, form="own", valid="own", dtype=torch.float64, device=CPU):
    """Return the operator's arguments; form says what shares the prototypes."""
    sizes = {"space": (10,), "num_prototypes": 7, "shared": form != "own"}
    arguments = inputs(device, **sizes, valid=valid, dtype=dtype)
    prototypes = arguments["prototypes"]
    if form == "structures":
        prototypes = prototypes[:, :1].clone()
    return arguments["query"], prototypes, arguments.get("valid"), *SETTINGS


def with_grad(arguments):
    return tuple(
        argument.detach().requires_grad_()
        if isinstance(argument, torch.Tensor) and argument.is_floating_point()
        else argument
        for argument in arguments
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("form", "valid", "strided"),
    [
        ("own", None, False),
        ("own", "own", True),
        ("support", "rare", False),
        ("structures", "own", False),
    ],
)
def test_registration(form, valid, strided, dtype, device, small_tiles):
    arguments = operands(form=form, valid=valid, dtype=dtype, device=device)
    if strided:
        query, *others = arguments
        arguments = (query.transpose(1, 2).contiguous().transpose(1, 2), *others)
    torch.library.opcheck(reduced_similarity, with_grad(arguments))
    reduced, kept = reduced_similarity(*arguments)
    grad = draw(reduced.shape, seed=5, device=device, dtype=reduced.dtype)
    for_backward = (grad, *arguments[:3], reduced, kept, *arguments[3:])
    torch.library.opcheck(reduced_similarity_backward, for_backward)


@pytest.mark.parametrize("form", ["own", "structures"])
def test_half_operands_are_summed_in_float32(form, device):
    arguments = with_grad(operands(form=form, dtype=torch.bfloat16, device=device))
    exact = with_grad(
        x.double() if isinstance(x, torch.Tensor) and x.requires_grad else x for x in arguments
    )
    (reduced, kept), (expected, _) = reduced_similarity(*arguments), reduced_similarity(*exact)
    assert reduced.dtype == kept.dtype == torch.float32
    torch.testing.assert_close(reduced.double(), expected, **TOLERANCES[torch.float32])
    weights = draw(reduced.shape, seed=5, device=device)
    for result in (reduced, expected):
        (result * weights).sum().backward()
    for half, double in zip(arguments[:2], exact[:2], strict=True):
        assert half.grad.dtype == torch.bfloat16
        torch.testing.assert_close(half.grad.double(), double.grad, **TOLERANCES[torch.bfloat16])
