"""Pictures of episodes: three panels side by side, masks in colour."""

from __future__ import annotations

import numpy as np
import torch

from fsmis_components.episodes.pictures import episode_picture
from fsmis_components.reporting.drawing import COLOURS


def test_panels_show_support_query_and_prediction() -> None:
    image = torch.linspace(0, 1, 12 * 10).reshape(1, 12, 10)
    label = torch.zeros(2, 12, 10)
    label[0, :3] = 1
    episode = {
        "image": image,
        "label": label,
        "support_image": image[None],
        "support_label": label.flip(1)[None],
    }
    picture = episode_picture(episode, torch.zeros(2, 12, 10))
    # rows of a slice run to the right on the screen, columns upwards
    assert picture.shape == (10, 36, 3) and picture.dtype == np.uint8
    support, query, pred = np.split(picture.astype(int), 3, axis=1)
    assert np.array_equal(pred[..., 0], pred[..., 1])  # no mask, no colour
    coloured = (query != pred).any(-1)
    assert coloured.sum() == 30
    assert (support != pred).any(-1).sum() == 30
    assert not np.array_equal(coloured, (support != pred).any(-1))
    grey = pred[coloured].astype(float)
    np.testing.assert_allclose(query[coloured], (grey + np.array(COLOURS[0])) / 2, atol=1)
