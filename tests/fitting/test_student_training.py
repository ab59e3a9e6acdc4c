"""A student's training is the same each time, in float32 and under bfloat16 autocast."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet

from fsmis_components.fitting import MarginalDiceCELoss
from fsmis_components.fitting.student_scans import StudentScan
from fsmis_components.fitting.student_slices import StudentSlices
from fsmis_components.fitting.student_training import train_student


def trained(folder: Path, amp: bool) -> torch.Tensor:
    """All weights of a small student after one epoch, as one vector."""
    label = torch.zeros(3, 32, 32, dtype=torch.uint8)
    label[:, 8:20, 8:20] = 1
    scan = StudentScan("a", label.half(), label, 5.0, torch.zeros(3, 1, dtype=torch.bool), True)
    torch.manual_seed(0)
    network = BasicUNet(2, in_channels=3, out_channels=2, features=(4, 4, 4, 4, 4, 4), norm="batch")
    train_student(
        network,
        StudentSlices([scan], 1),
        MarginalDiceCELoss(),
        partial(torch.optim.AdamW, lr=1e-3),
        folder,
        steps=1,
        batch_size=2,
        amp=amp,
        progress=False,
    )
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_a_seed_gives_one_student(tmp_path: Path) -> None:
    first, again = (trained(tmp_path / name, amp=False) for name in ("first", "again"))
    assert torch.equal(first, again)


def test_half_precision_gives_nearly_the_same_student(tmp_path: Path) -> None:
    exact, half = (trained(tmp_path / str(amp), amp) for amp in (False, True))
    assert not torch.equal(exact, half)
    assert (exact - half).abs().mean() < 0.1 * exact.abs().mean()
