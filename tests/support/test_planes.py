"""A support that is cut along one axis, or along all three."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from block_scans import block_image, block_label, write_scan
from fake_network import IntensityNetwork

from fsmis_components.data.volumes import Volume
from fsmis_components.inferers import VolumeInferer
from fsmis_components.support import (
    SupportPack,
    SupportSet,
    SupportSource,
    build_support_pack,
    load_support_set,
)
from fsmis_components.support.support_pack import content_hash, join_packs

ISOTROPIC = np.diag([1.5, 1.5, 1.5, 1.0])


@pytest.fixture
def network() -> IntensityNetwork:
    return IntensityNetwork()


@pytest.fixture
def support(tmp_path: Path) -> SupportSet:
    write_scan(tmp_path, 1, block_label())
    return with_affine(load_support_set(tmp_path), ISOTROPIC)


def with_affine(support: SupportSet, affine: np.ndarray) -> SupportSet:
    scans = tuple(
        replace(
            scan,
            image=replace(scan.image, affine=affine),
            label=replace(scan.label, affine=affine),
        )
        for scan in support.scans
    )
    return replace(support, scans=scans)


def test_one_pack_for_each_axis(network: IntensityNetwork, support: SupportSet) -> None:
    pack = build_support_pack(network, support, spatial_size=24)
    assert [grid.slice_axis for grid in pack.frame.grids] == [2, 0, 1]
    for own, axis in zip([pack, *pack.planes], (2, 0, 1), strict=True):
        alone = build_support_pack(
            network, support, spatial_size=24, slice_axis=axis, fuse_planes=False
        )
        assert content_hash(replace(own, planes=())) == content_hash(alone)
    assert content_hash(pack) != content_hash(replace(pack, planes=()))


def test_one_plane_where_another_would_be_wrong(
    network: IntensityNetwork, support: SupportSet
) -> None:
    options = {"spatial_size": 24}
    assert not build_support_pack(network, support, fuse_planes=False, **options).planes
    thick = with_affine(support, np.diag([1.5, 1.5, 6.0, 1.0]))
    assert not build_support_pack(network, thick, **options).planes
    sparse = np.array(support.scans[0].label.data)
    labelled = np.flatnonzero(sparse.any((0, 1)))
    sparse[:, :, labelled[1:-1:2]] = 0  # a person outlined every second slice
    scan = support.scans[0]
    unlabelled = replace(scan, label=replace(scan.label, data=np.zeros_like(sparse)))
    both = replace(support, scans=(scan, unlabelled))
    assert len(build_support_pack(network, both, **options).planes) == 2
    striped = replace(scan, label=replace(scan.label, data=sparse))
    assert not build_support_pack(network, replace(support, scans=(striped,)), **options).planes


def test_stored_joined_and_selected(
    tmp_path: Path, network: IntensityNetwork, support: SupportSet
) -> None:
    pack = build_support_pack(network, support, spatial_size=24)
    read = SupportPack.load(pack.save(tmp_path / "pack.safetensors"))
    assert content_hash(read) == content_hash(pack)
    one = pack.selected([pack.structures[1].value]).numbered()
    assert all(plane.structures == one.structures for plane in one.planes)
    assert all(plane.state["valid"].shape[1] == 1 for plane in one.planes)
    added = build_support_pack(network, support, frame=pack.frame)
    joined = join_packs([pack, added])
    assert [len(plane.profiles) for plane in joined.planes] == [2, 2]
    # a scan that serves in one plane alone takes no plane away
    joined = join_packs([pack, replace(added, planes=())])
    assert [len(plane.profiles) for plane in joined.planes] == [1, 1]
    kept = SupportSource(support_pack=tmp_path / "pack.safetensors", fuse_planes=False)
    assert not kept.resolve(network).planes


def test_margins_of_all_planes_decide(network: IntensityNetwork, support: SupportSet) -> None:
    pack = build_support_pack(network, support, spatial_size=24)
    # planes that see another structure in place of the right one outvote the first
    swapped = [
        {key: value.flip(1) if value.shape[1] == 2 else value for key, value in plane.state.items()}
        for plane in pack.planes
    ]
    planes = zip(pack.planes, swapped, strict=True)
    other = replace(pack, planes=tuple(replace(plane, state=state) for plane, state in planes))
    query = Volume(block_image(seed=5), ISOTROPIC)
    steps = {"shape_prior": False, "registration": False}  # expected shapes would hold against it
    wrong, agreed = (
        VolumeInferer(each, uncertainty=True, steps=steps).segment_volume(query, network)
        for each in (other, pack)
    )
    assert float((agreed.label != block_label()).mean()) < 0.01
    assert float((wrong.label != agreed.label)[block_label() > 0].mean()) > 0.1
    assert wrong.uncertainty is not None and agreed.uncertainty is not None
    assert wrong.uncertainty.mean() > agreed.uncertainty.mean()
