from __future__ import annotations

import torch

from fsmis_components.inferers.matching import section_weights, spread_thirds

# structure 0: slices 0, 1, 2 are its sections; structure 1: slice 3 answers for all three
SECTIONS = torch.zeros(2, 4, 3, dtype=torch.bool)
SECTIONS[0, :3] = torch.eye(3, dtype=torch.bool)
SECTIONS[1, 3] = True


def test_thirds_of_the_whole_volume() -> None:
    weights = spread_thirds(7, SECTIONS)  # floor(3 z / 7): 0 0 0 1 1 2 2
    assert weights.shape == (7, 2, 4)
    assert weights[:, 0].argmax(-1).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert torch.equal(weights[:, 0].sum(-1), torch.ones(7))
    assert torch.equal(weights[:, 1], torch.tensor([0.0, 0, 0, 1]).expand(7, 4))


def test_fewer_slices_than_sections() -> None:
    assert spread_thirds(1, SECTIONS)[:, 0].argmax(-1).tolist() == [0]
    assert spread_thirds(2, SECTIONS)[:, 0].argmax(-1).tolist() == [0, 1]


def test_all_shots_of_a_section_answer() -> None:
    two_shots = torch.cat([SECTIONS, SECTIONS], 1)
    assert spread_thirds(3, two_shots)[1, 0].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


def test_an_absent_structure_has_no_weight() -> None:
    chosen = torch.tensor([[2, -1], [-1, 0]])
    weights = section_weights(chosen, SECTIONS)
    assert weights.tolist() == [[[0, 0, 1, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 1]]]
