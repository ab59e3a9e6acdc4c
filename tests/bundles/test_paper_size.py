"""The network of ``paper.json`` trains and segments in the memory of an ordinary machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundle_folders import build_network
from monai.bundle import ConfigParser

LIMIT = 12 * 2**30  # bytes
SIZE = 256


@pytest.mark.slow
def test_a_training_step_and_an_inference_fit(bundle: Path) -> None:
    """In a process of its own, whose peak of memory nothing else can raise."""
    done = subprocess.run(
        [sys.executable, __file__, str(bundle)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["shape"] == [1, 2, SIZE, SIZE]
    assert found["finite"] and found["changed"]
    assert found["peak"] < LIMIT


def _train_and_segment(bundle: Path) -> dict[str, object]:
    import resource  # not on Windows

    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in ("train", "paper")])
    parser["device"] = "$torch.device('cpu')"
    network, loss, optimizer = (
        parser.get_parsed_content(name) for name in ("network_def", "loss", "optimizer")
    )
    torch.manual_seed(0)
    image, support_image = torch.randn(2, 1, 1, SIZE, SIZE)
    label = torch.zeros(1, 1, SIZE, SIZE)
    label[..., 80:150, 90:140] = 1
    support = {"support_image": support_image[None], "support_label": label[None]}
    before = next(network.parameters()).detach().clone()
    total = loss(network.train()(image, label=label, **support), label)
    total.backward()
    optimizer.step()
    changed = not torch.equal(before, next(network.parameters()))

    # the same overlay on inference.json gives the network that these weights belong to
    twin = build_network(bundle, "paper")
    twin.load_state_dict(network.state_dict())
    with torch.inference_mode():
        logits = twin.eval()(image, **support)
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "shape": list(logits.shape),
        "finite": bool(torch.isfinite(total)) and bool(torch.isfinite(logits).all()),
        "changed": changed,
        "peak": scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


if __name__ == "__main__":
    print(json.dumps(_train_and_segment(Path(sys.argv[1]))))  # noqa: T201
