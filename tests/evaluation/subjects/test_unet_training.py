from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from fsmis_components.data.errors import DataError
from fsmis_components.evaluation.subjects.supervised_unet import (
    LabelledStack,
    SupervisedUNet,
    draw_batch,
    new_network,
    train,
)


def settings(**changes: Any) -> SupervisedUNet:
    known = {"steps": 5, "batch_size": 3, "filters": (4, 4, 4, 4), "progress": False}
    return SupervisedUNet(**{**known, **changes})


def stack() -> LabelledStack:
    """Ten slices: structure 1, bright, in slice 3; structure 2, dark, in slices 6 and 7."""
    images = torch.zeros(10, 1, 32, 24)
    masks = torch.zeros(10, 2, 32, 24, dtype=torch.bool)
    masks[3, 0, 8:20, 6:18] = True
    masks[6:8, 1, 12:26, 4:16] = True
    images[:, 0][masks[:, 0]] = 4.0
    images[:, 0][masks[:, 1]] = -4.0
    return LabelledStack(images, masks)


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def trained(**changes: Any) -> list[torch.Tensor]:
    chosen = settings(**changes)
    network = new_network(3, chosen.filters, chosen.seed)
    train(network, stack(), chosen)
    return weights(network)


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_image_and_label_are_bent_alike_and_structures_are_sure_to_come() -> None:
    own = stack()
    seen = set()
    for seed in range(20):
        image, label = draw_batch(own, [[3], [6, 7]], 6, np.random.default_rng(seed))
        assert image.shape == label.shape == (6, 1, 32, 24)
        assert label[:2].flatten(1).any(1).all()  # a third of six
        seen |= set(label.unique().tolist())
        for picture, classes in zip(image, label, strict=True):
            if (classes == 1).sum() > 40:
                assert picture[classes == 1].mean() > picture[classes == 0].mean() + 1
            if (classes == 2).sum() > 40:
                assert picture[classes == 2].mean() < picture[classes == 0].mean() - 1
    assert seen == {0, 1, 2}


def test_same_seed_same_bits() -> None:
    first = trained(amp=True)
    assert equal(first, trained(amp=True))
    assert not equal(first, trained(amp=True, seed=1))


def test_the_global_random_state_is_left_alone() -> None:
    def states() -> tuple[bytes, bytes, object]:
        legacy = np.random.get_state()[1]  # noqa: NPY002 (the global state is what is looked at)
        return torch.get_rng_state().numpy().tobytes(), legacy.tobytes(), random.getstate()

    before = states()
    trained()
    assert states() == before


def test_learning_rate_falls_to_the_power_of_nine_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    trained(steps=4)
    assert rates == pytest.approx([0.01 * share**0.9 for share in (1, 0.75, 0.5, 0.25)])


def test_rejects_a_loss_that_is_no_number() -> None:
    own = stack()
    own.images[:] = torch.nan
    network = new_network(3, (4, 4, 4, 4), 0)
    with pytest.raises(DataError, match="the loss of step 0 is no number; lower the learning rate"):
        train(network, own, settings())
