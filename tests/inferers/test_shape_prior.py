from __future__ import annotations

import torch

from fsmis_components.inferers.shape_prior import (
    PriorRule,
    best_move,
    lead_over_rivals,
    log_odds,
    map_shapes,
    move_shape,
    present_slices,
    to_cells,
    to_pixels,
)

RULE = PriorRule()


def block(depth: int, rows: int, columns: int) -> torch.Tensor:
    """A block of 4 x 6 x 8 cells in a volume of 20 x 40 x 40."""
    volume = torch.zeros(20, 40, 40)
    volume[depth : depth + 4, rows : rows + 6, columns : columns + 8] = 1.0
    return volume


def test_a_shape_moves_to_its_evidence() -> None:
    evidence = block(9, 14, 12) * 12 - 6
    move = best_move(evidence, block(8, 10, 15), RULE, depth=20, slope=1.0)
    assert move == (1, 4, -3)
    assert torch.equal(move_shape(block(8, 10, 15), move), block(9, 14, 12))


def test_a_shape_without_evidence_stays() -> None:
    assert best_move(torch.zeros(20, 40, 40), block(8, 10, 15), RULE, 20, 1.0) == (0, 0, 0)
    assert best_move(torch.ones(20, 40, 40), torch.zeros(20, 40, 40), RULE, 20, 1.0) == (0, 0, 0)


def test_reach_is_kept_and_counts_support_slices() -> None:
    evidence = block(15, 10, 15) * 12 - 6
    far = best_move(evidence, block(2, 10, 15), RULE, depth=20, slope=1.0)
    assert abs(far[0]) <= RULE.slices(20) == 3
    # half as thick slices of the query: twice as many of them
    assert best_move(evidence, block(9, 10, 15), RULE, depth=20, slope=0.5)[0] == 6


def test_a_volume_of_one_slice() -> None:
    shape = block(8, 10, 15)[8:9]
    move = best_move(block(8, 12, 15)[8:9] * 12 - 6, shape, RULE, depth=20, slope=1.0)
    assert move == (0, 2, 0)


def test_tall_stacks_are_thinned() -> None:
    shape, evidence = torch.zeros(400, 20, 20), torch.full((400, 20, 20), -6.0)
    shape[100:180, 5:15, 5:15] = 1.0
    evidence[120:200, 5:15, 5:15] = 6.0
    assert best_move(evidence, shape, RULE, depth=400, slope=1.0) == (20, 0, 0)


def test_what_is_moved_in_is_empty() -> None:
    assert move_shape(torch.ones(3, 4, 4), (1, 0, -2)).sum(0).tolist() == [[2.0, 2.0, 0, 0]] * 4


def test_leads_over_background_and_others() -> None:
    margins = torch.tensor([3.0, 5.0, -1.0])[None, :, None, None]
    assert lead_over_rivals(margins).flatten().tolist() == [-2.0, 2.0, -6.0]
    assert lead_over_rivals(margins[:, :1]).flatten().tolist() == [3.0]


def test_mapping_interpolates_and_centres() -> None:
    shapes = torch.zeros(3, 1, 2, 2)
    shapes[1] = 1.0  # one slice between two of padding
    mapped = map_shapes(shapes.numpy(), torch.tensor([-9.0, 0.0, 0.25]).numpy(), 1, (4, 2))
    assert mapped[:, 0, 1, 0].tolist() == [0.0, 1.0, 0.75]
    assert mapped[1, 0, :, 0].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_log_odds_are_bounded_and_faint_slices_absent() -> None:
    odds = log_odds(torch.tensor([0.0, 0.5, 1.0]))
    assert odds[1] == 0 and odds[2] == -odds[0] and 3.9 < odds[2] < 4.0
    shape = torch.tensor([0.01, 0.03])[:, None, None, None]
    assert present_slices(shape).flatten().tolist() == [False, True]


def test_cells_and_pixels() -> None:
    cells = to_cells(torch.arange(12.0).reshape(1, 1, 3, 4), 2)
    assert cells.tolist() == [[[[2.5, 4.5], [8.5, 10.5]]]]
    assert to_pixels(cells, 2, (3, 4)).shape == (1, 1, 3, 4)
