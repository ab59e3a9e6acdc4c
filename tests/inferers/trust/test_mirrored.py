from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from block_scans import AFFINE, block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.geometry import SliceView
from fsmis_components.data.intensity import fit_normaliser
from fsmis_components.data.volumes import Volume
from fsmis_components.inferers.matching import match_volume
from fsmis_components.inferers.trust import mirror_gain
from fsmis_components.support import SupportPack, build_support_pack, load_support_set
from fsmis_components.support.slice_descriptors import slice_descriptors


class ContrastNetwork(IntensityNetwork):
    """Unit-length features need two channels to tell intensities apart."""

    def encode(self, image: torch.Tensor):  # type: ignore[no-untyped-def]
        features = super().encode(image)
        return features._replace(high=torch.cat([image, torch.ones_like(image)], 1))


def gain_of(pack: SupportPack, data: np.ndarray) -> float:
    volume = Volume(data, AFFINE)
    view = SliceView(volume, pack.grid)
    slices = fit_normaliser(volume, pack.normalisation)(view.slices(0, view.depth))
    descriptors = slice_descriptors(ContrastNetwork().encode(slices).high)
    match = match_volume(descriptors, view.native_spacing[0], pack, reach=0.0)
    return mirror_gain(descriptors, view.native_spacing[0], pack, match)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_a_mirrored_scan_gains(tmp_path: Path, axes: tuple[int, ...]) -> None:
    write_scan(tmp_path, 1, block_label())
    pack = build_support_pack(ContrastNetwork(), load_support_set(tmp_path), spatial_size=24)
    image = block_image(seed=7)
    assert gain_of(pack, image) < 0
    assert gain_of(pack, np.ascontiguousarray(np.flip(image, axes))) > 0
