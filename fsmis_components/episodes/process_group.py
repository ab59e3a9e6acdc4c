"""The end of a training on several processes."""

from __future__ import annotations

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["leave_process_group"]


def leave_process_group(network: DistributedDataParallel) -> None:
    """Wait for the other processes, then end the common group and its threads.

    The network keeps the group alive beyond ``destroy_process_group``, and with it gloo's threads.
    One that lets go of a gradient while Python shuts down asks for the interpreter's lock and
    aborts the process (PyTorch issue 179291), so the network lets go first.

    Args:
        network: network that was trained; no step can follow.
    """
    dist.barrier()
    vars(network).update(reducer=None, logger=None, process_group=None)
    dist.destroy_process_group()
