import torch

from fsmis_components.encoding.slice_descriptors import slice_descriptors


def test_descriptors_keep_directions_and_places() -> None:
    features = torch.zeros(1, 2, 16, 16)
    features[:, 0] = 5.0  # length does not count
    features[:, :, :2, :2] = torch.tensor([0.0, 0.1])[:, None, None]
    described = slice_descriptors(features).reshape(2, 8, 8)
    assert described[:, 0, 0].tolist() == [0.0, 1.0]
    assert described[:, 0, 1].tolist() == [1.0, 0.0]


def test_slices_of_another_size_are_compared_where_they_overlap() -> None:
    whole = torch.randn(3, 5, 32, 24, generator=torch.Generator().manual_seed(0))
    part = whole[:, :, 8:24, 6:18]
    # the part as it lies in the whole, zero around it; and of the whole what the part shows
    around = slice_descriptors(part, (2.0, 2.0)).reshape(3, 5, 8, 8)
    inside = slice_descriptors(whole).reshape(3, 5, 8, 8)[..., 2:6, 2:6]
    torch.testing.assert_close(around[..., 2:6, 2:6], inside)
    assert not around[..., :2, :].any() and not around[..., 6:].any()
    torch.testing.assert_close(slice_descriptors(whole, (0.5, 0.5)), slice_descriptors(part))
