import pytest
import torch
from tolerances import TOLERANCES

from fsmis_components.ops import masked_average_pool

B, N, C, H, W = 2, 3, 19, 17, 33


def test_values(device):
    features = torch.tensor([[[[1.0, 2.0], [3.0, 10.0]], [[0.0, 4.0], [8.0, 6.0]]]], device=device)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [0.25, 0.25]]]], device=device)
    pooled = masked_average_pool(features, mask, eps=0.0)
    # (1 + 10) / 2, (0 + 6) / 2; 2 / 2 + 3 / 4 + 10 / 4, 4 / 2 + 8 / 4 + 6 / 4
    torch.testing.assert_close(pooled.cpu(), torch.tensor([[[5.5, 3.0], [4.25, 5.5]]]))
    half_empty = masked_average_pool(features, mask, eps=1.0)
    torch.testing.assert_close(half_empty, pooled * torch.tensor([[[2 / 3], [1 / 2]]]).to(device))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_inputs_are_summed_in_float32(dtype, device):
    generator = torch.Generator().manual_seed(0)
    # the sum exceeds the range of float16 and the count what bfloat16 can hold
    features = (torch.rand(B, C, 64, 65, generator=generator) * 100).to(dtype).to(device)
    mask = (torch.rand(B, N, 64, 65, generator=generator) > 0.2).to(dtype).to(device)
    expected = masked_average_pool(features.double(), mask.double())
    pooled = masked_average_pool(features, mask)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.double(), expected, **TOLERANCES[dtype])
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(masked_average_pool(features, mask), pooled)
