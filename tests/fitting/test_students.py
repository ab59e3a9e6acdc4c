"""A student's training is the same each time, in float32 and under bfloat16 autocast."""

from functools import partial
from pathlib import Path

import torch
from monai.networks.nets import BasicUNet

from fsmis_components.fitting import MarginalDiceCELoss
from fsmis_components.fitting.student_scans import StudentScan
from fsmis_components.fitting.students import StudentTrainings


def trained(folder: Path, amp: bool) -> torch.Tensor:
    """All weights of a small student after three epochs, as one vector."""
    label = torch.zeros(3, 32, 32, dtype=torch.uint8)
    label[:, 8:20, 8:20] = 1
    scan = StudentScan("a", label.half(), label, 5.0, torch.zeros(3, 1, dtype=torch.bool), True)
    make_network = partial(
        BasicUNet, 2, in_channels=3, out_channels=2, features=(4, 4, 4, 4, 4, 4), norm="batch"
    )
    *_, network = StudentTrainings(
        make_network,
        MarginalDiceCELoss(),
        partial(torch.optim.AdamW, lr=1e-3),
        folder,
        num_structures=1,
        device=torch.device("cpu"),
        steps=(1, 1, 1),
        batch_size=2,
        seed=0,
        amp=amp,
    ).run([scan], [])
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_a_seed_gives_one_student(tmp_path: Path) -> None:
    first, again = (trained(tmp_path / name, amp=False) for name in ("first", "again"))
    assert torch.equal(first, again)


def test_half_precision_gives_nearly_the_same_student(tmp_path: Path) -> None:
    exact, half = (trained(tmp_path / str(amp), amp) for amp in (False, True))
    assert not torch.equal(exact, half)
    assert (exact - half).abs().mean() < 0.1 * exact.abs().mean()
