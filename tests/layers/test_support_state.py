import pytest
import torch

from fsmis_components.layers.support_state import check_state, select_pairs

B, S, N, C = 2, 4, 3, 19


def make_state():
    return {
        "valid": torch.rand(B, N, S) > 0.5,
        "cells": torch.rand(B, 1, S, 5, C),
        "foreground": torch.rand(1, N, S, C),
    }


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("valid", torch.ones(B, N, S), r"'valid' of bool, .*got \(2, 3, 4\) torch.float32"),
        ("valid", torch.ones(N, S) > 0, r"'valid' of bool, .*got \(3, 4\)"),
        ("cells", torch.rand(B, N + 1, S, C), r"cells of shape .*\(2, 4, 4, 19\)"),
        ("cells", torch.rand(B, N, S + 1, C), r"\(2 or 1, 3 or 1, 4, ...\) as valid"),
        ("cells", torch.rand(B, N), r"got \(2, 3\)"),
    ],
)
def test_rejects(name, tensor, message):
    with pytest.raises(ValueError, match="SupportState: expected .*" + message):
        check_state({**make_state(), name: tensor})


def test_pairs_are_taken_in_order_and_shared_tensors_are_spread() -> None:
    state = {
        "valid": torch.ones(2, 3, 2, dtype=torch.bool),
        "own": torch.arange(12.0).reshape(2, 3, 2),
        "shared": torch.tensor([[[7.0, 8.0]]]),  # one for the batch and all structures
    }
    chosen = select_pairs(state, 1, torch.tensor([5, 0]))  # (structure 2, slice 1), (0, 0)
    assert chosen["own"].tolist() == [[[11.0, 6.0]]]
    assert chosen["shared"].tolist() == [[[8.0, 7.0]]]
    check_state(chosen)
