from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fsmis_components.episodes.process_group import leave_process_group


def gloo_threads() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    network = DistributedDataParallel(torch.nn.Linear(3, 3))
    network(torch.ones(2, 3)).sum().backward()
    assert gloo_threads()
    leave_process_group(network)
    assert not gloo_threads()
    assert not dist.is_initialized()
