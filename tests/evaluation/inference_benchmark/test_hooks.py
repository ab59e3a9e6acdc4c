from __future__ import annotations

from pathlib import Path

import pytest
import torch
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from monai.data import Dataset

from fsmis_components.data.errors import DataError
from fsmis_components.data.geometry import SliceView
from fsmis_components.evaluation.inference_benchmark import StageClock
from fsmis_components.evaluation.inference_benchmark.hooks import HOOKS, STAGES, hooked
from fsmis_components.inferers import FolderEvaluator, VolumeInferer, query_items
from fsmis_components.support import SupportSource


def test_a_folder_run_passes_every_stage(tmp_path: Path) -> None:
    """Who renames or goes round a function that is a stage has to say which one is it now."""
    write_scan(tmp_path / "s", 1, block_label())
    write_scan(tmp_path / "q", 2)
    network = IntensityNetwork()
    clock = StageClock()
    run = FolderEvaluator(
        device="cpu",
        dataset=Dataset(query_items(tmp_path / "q")),
        network=network,
        inferer=VolumeInferer(SupportSource(tmp_path / "s", spatial_size=24)),
        output_dir=tmp_path / "o",
        progress=False,
    )
    with hooked(clock, network):
        run.run()
    stages = clock.split()
    assert set(stages) == set(STAGES)
    assert all(cost.seconds > 0 for cost in stages.values())
    assert (tmp_path / "o" / "image_2_seg.nii.gz").exists()


def test_everything_is_as_before() -> None:
    network = IntensityNetwork()
    before = [vars(hook.owner)[hook.name] for hook in HOOKS]
    with pytest.raises(DataError), hooked(StageClock(), network):
        assert vars(SliceView)["slices"] not in before
        assert "encode" in vars(network)
        network.encode(torch.zeros(1, 1, 2, 2))
        raise DataError("stop.")
    assert [vars(hook.owner)[hook.name] for hook in HOOKS] == before
    assert not {"encode", "segment"} & set(vars(network)) and network.encoded == [1]
