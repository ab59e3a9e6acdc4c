import pytest
import torch
import torch.nn.functional as F
from similarity_samples import draw

from fsmis_components.ops.similarity.unit_vectors import to_unit, to_unit_backward


@pytest.mark.parametrize("dim", [1, 2])
def test_values(dim):
    vectors = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    unit, length = to_unit(vectors, dim, eps=1e-4)
    root = 20.0**0.5
    expected = {
        1: ([[[1.0, 4 / root], [0.0, 2 / root]]], [[[3.0, root]]]),
        2: ([[[0.6, 0.8], [0.0, 1.0]]], [[[5.0], [2.0]]]),
    }[dim]
    torch.testing.assert_close((unit, length), tuple(torch.tensor(part) for part in expected))


def test_short_vectors_are_divided_by_eps():
    vectors = torch.tensor([[0.003, 0.004], [0.0, 0.0]])
    unit, length = to_unit(vectors, 1, eps=0.1)
    torch.testing.assert_close(unit, torch.tensor([[0.03, 0.04], [0.0, 0.0]]))
    torch.testing.assert_close(length, torch.tensor([[0.1], [0.1]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_vectors_are_summed_in_float32(dtype, device):
    unit, length = to_unit(torch.full((1, 64, 3), 300.0, dtype=dtype, device=device), 1, eps=1e-4)
    assert (unit.dtype, length.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(length.cpu(), torch.full((1, 1, 3), 2400.0))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_derivative_is_that_of_normalize(dim, channels_last, device):
    vectors = draw((2, 5, 6), seed=0, device=device)
    vectors[0, :, 0] *= 1e-3  # shorter than eps
    vectors[1, 2] = 0.0
    if channels_last:
        vectors = vectors.transpose(1, 2).contiguous().transpose(1, 2)
    vectors.requires_grad_()
    expected = F.normalize(vectors, dim=dim, eps=0.05)
    grad = draw(vectors.shape, seed=1, device=device)
    (expected_grad,) = torch.autograd.grad(expected, vectors, grad)
    with torch.no_grad():
        unit, length = to_unit(vectors, dim, eps=0.05)
        result = to_unit_backward(grad.clone(), unit, length, dim, eps=0.05)
    torch.testing.assert_close(unit, expected.detach())
    torch.testing.assert_close(result, expected_grad)
