import torch

from fsmis_components.inferers.expected_shapes import PRIOR, best_move, log_ratio, move_shape, votes


def block(depth: int, rows: int, columns: int) -> torch.Tensor:
    """A block of 4 x 6 x 8 cells in a volume of 20 x 40 x 40."""
    volume = torch.zeros(20, 40, 40)
    volume[depth : depth + 4, rows : rows + 6, columns : columns + 8] = 1.0
    return volume


def test_a_shape_moves_to_its_evidence() -> None:
    evidence = block(9, 14, 12) * 12 - 6
    move = best_move(evidence, block(8, 10, 15), depth=20, slope=1.0)
    assert move == (1, 4, -3)
    assert torch.equal(move_shape(block(8, 10, 15), move), block(9, 14, 12))


def test_reach_is_kept_and_counts_support_slices() -> None:
    evidence = block(15, 10, 15) * 12 - 6
    far = best_move(evidence, block(2, 10, 15), depth=20, slope=1.0)
    assert abs(far[0]) <= PRIOR.slices(20) == 3
    # half as thick slices of the query: twice as many of them
    assert best_move(evidence, block(9, 10, 15), depth=20, slope=0.5)[0] == 6


def test_neighbours_compete_with_each_other_and_not_all_with_the_background() -> None:
    beside, alone = torch.tensor([0.45, 0.4]), torch.tensor([0.45, 0.0])
    of_both, of_one = (log_ratio(each.view(1, 2, 1, 1)).flatten() for each in (beside, alone))
    assert of_both[0] > of_both[1] > 0 > of_one[0]  # background has 0
    nowhere = log_ratio(torch.zeros(1, 2, 1, 1))
    assert torch.isfinite(nowhere).all() and (nowhere < of_one[0]).all()


def test_shapes_of_a_good_registration_are_blurred_less() -> None:
    shares = [PRIOR.registered_share(likeness) for likeness in (-1.0, 0.5, 0.6, 1.0)]
    assert shares[0] == PRIOR.poor_share > shares[1] > shares[2] == shares[3] == PRIOR.good_share


def test_a_support_scan_is_followed_where_it_is_alike() -> None:
    first, second = torch.zeros(2, 3, 8, 8)
    first[..., :4], second[..., 4:] = 0.9, 0.9
    weights = votes([first, second])
    assert all(weight.shape == (3, 1, 8, 8) for weight in weights)
    assert (weights[0][..., :4] == 1).all() and (weights[0][..., 4:] < 1e-6).all()
    assert (weights[1][..., 4:] == 1).all() and (weights[1][..., :4] < 1e-6).all()
    assert (votes([first])[0] == 1).all(), "one scan decides alone, however unlike"
