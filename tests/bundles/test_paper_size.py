"""`paper.json` gives a network that trains by its own schedule, and the same one for inference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundle_folders import build_network
from monai.bundle import ConfigParser

SIZE = 64


@pytest.mark.slow
def test_a_training_step_and_an_inference(bundle: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in ("train", "paper")])
    parser["device"] = "$torch.device('cpu')"
    network, loss, optimizer, schedule = (
        parser.get_parsed_content(name)
        for name in ("network_def", "loss", "optimizer", "lr_scheduler")
    )
    assert isinstance(optimizer, torch.optim.SGD)
    torch.manual_seed(0)
    image, support_image = torch.randn(2, 1, 1, SIZE, SIZE)
    label = torch.zeros(1, 1, SIZE, SIZE)
    label[..., 20:40, 22:36] = 1
    support = {"support_image": support_image[None], "support_label": label[None]}
    before = next(network.parameters()).detach().clone()
    total = loss(network.train()(image, label=label, **support), label)
    total.backward()
    optimizer.step()
    schedule.step()
    assert torch.isfinite(total) and not torch.equal(before, next(network.parameters()))

    # the same overlay on inference.json gives the network that these weights belong to
    twin = build_network(bundle, "paper")
    twin.load_state_dict(network.state_dict())
    with torch.inference_mode():
        logits = twin.eval()(image, **support)
    assert logits.shape == (1, 2, SIZE, SIZE) and bool(torch.isfinite(logits).all())
