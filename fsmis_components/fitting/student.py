"""The student: a plain 2.5D network of a folder, and its answer for a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from fsmis_components.data.geometry import centre_fit
from fsmis_components.fitting.student_scans import StudentScan, whole_side, with_neighbours

_BATCH = 16  # slices a forward pass


def student_shares(network: nn.Module, image: Tensor) -> Tensor:
    """What the student says of all slices of a scan.

    Args:
        network: (B, 3, H, W) -> logits (B, 1 + N, H, W); left in the mode in which it came.
        image: (D, H, W), see `student_image`.

    Returns:
        float16 (D, 1 + N, H, W), probabilities.
    """
    device = next(network.parameters()).device
    height, width = image.shape[1:]
    size = (whole_side(height), whole_side(width))
    shares = []
    with eval_mode(network), torch.inference_mode():
        for start in range(0, len(image), _BATCH):
            stack = with_neighbours(image, start, min(start + _BATCH, len(image)))
            logits = network(centre_fit(stack, size).to(device))
            shares.append(centre_fit(logits.softmax(1), (height, width)).half().cpu())
    return torch.cat(shares)


def relabelled(scan: StudentScan, students: Sequence[nn.Module]) -> StudentScan:
    """A scan with the mean mask of the students, one of which has not learned from it."""
    shares = torch.stack([student_shares(each, scan.image).float() for each in students]).mean(0)
    label = shares.argmax(1).byte()
    return replace(scan, label=label, doubtful=torch.zeros_like(scan.doubtful))
