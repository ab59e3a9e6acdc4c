import pytest
import torch
import torch.multiprocessing
from similarity_samples import draw, inputs

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
