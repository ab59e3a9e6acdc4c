import pytest
import torch
from similarity_samples import draw
from torch._dynamo.testing import CompileCounterWithBackend

from fsmis_components.ops import prototype_similarity

pytestmark = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"),
    reason="PyTorch 2.6 cannot tell torch.compile from export: it compiles the plain form",
)
OPERATOR = torch.ops.fsmis_components.reduced_similarity.default


@pytest.fixture(autouse=True)
def forget_earlier_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def sample(device, *, space=(30, 33), num_prototypes=50):
    """Draw arguments whose map is not small."""
    batch, n, channels = 2, 2, 6
    arguments = {
        "query": draw((batch, channels, *space), seed=0, device=device),
        "prototypes": draw((1, n, num_prototypes, channels), seed=1, device=device),
        "valid": draw((1, n, num_prototypes), seed=2, device=device) > -0.5,
    }
    return {
        name: tensor.requires_grad_(tensor.is_floating_point())
        for name, tensor in arguments.items()
    }


def solve(arguments):
    # what surrounds the operator is part of the graph
    arguments = {**arguments, "query": arguments["query"] * 2}
    return prototype_similarity(**arguments).sin()


def solve_with_gradients(function, arguments):
    result = function(arguments)
    floating = [tensor for tensor in arguments.values() if tensor.requires_grad]
    return result, torch.autograd.grad(result.square().sum(), floating)


def targets(counter) -> list:
    return [node.target for graph in counter.graphs for node in graph.graph.nodes]


def test_one_graph_holds_the_operator_whatever_the_sizes(device):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(solve, fullgraph=True, backend=counter)
    for space, num_prototypes in (((30, 33), 50), ((28, 37), 61), ((35, 31), 77)):
        arguments = sample(device, space=space, num_prototypes=num_prototypes)
        for name, axes in (("query", (2, 3)), ("prototypes", (2,)), ("valid", (2,))):
            torch._dynamo.mark_dynamic(arguments[name], axes)
        result = solve_with_gradients(compiled, arguments)
        torch.testing.assert_close(result, solve_with_gradients(solve, arguments))
    assert counter.frame_count == 1
    assert targets(counter).count(OPERATOR) == 1
