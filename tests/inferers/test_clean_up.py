import numpy as np

from fsmis_components.inferers.clean_up import Topology, clean_up, topology_of


def test_the_largest_parts_stay() -> None:
    labels = np.zeros((3, 8, 12), np.uint8)
    labels[0, 0:2, 0:2] = 7  # 4 voxels
    labels[1:3, 4:7, 4:7] = 7  # 18
    labels[0, 0, 9:12] = 7  # 3
    assert (clean_up(labels.copy(), [7], [Topology(1, True)]) == 7).sum() == 18
    two = clean_up(labels.copy(), [7], [Topology(2, True)])
    assert (two == 7).sum() == 22 and not two[0, 0, 9:].any()


def test_holes_are_filled_where_the_support_has_none() -> None:
    ring = np.zeros((1, 7, 7), np.uint8)
    ring[0, 1:6, 1:6] = 2
    ring[0, 2:5, 2:5] = 0
    ring[0, 3, 3] = 1  # another structure in the hole stays
    solid = clean_up(ring.copy(), [1, 2], [Topology(1, True), Topology(1, True)])
    assert (solid == 2).sum() == 24 and solid[0, 3, 3] == 1
    open_ = clean_up(ring.copy(), [1, 2], [Topology(1, True), Topology(1, False)])
    np.testing.assert_array_equal(open_, ring)


def test_topology_of_shapes() -> None:
    shapes = np.zeros((4, 16, 16), np.float32)
    shapes[:, 1:7, 1:7] = 1.0
    assert topology_of(shapes) == Topology(1, True)
    shapes[:, 9:15, 9:15] = 1.0
    shapes[0, 0, 15] = 1.0  # a speck is no part
    assert topology_of(shapes) == Topology(2, True)
    shapes[:, 3:5, 3:5] = 0.0
    assert topology_of(shapes) == Topology(2, False)
    thin = np.zeros((2, 8, 8), np.float32)
    thin[:, 3, 2:6] = 0.3  # thinner than a cell
    assert topology_of(thin).parts == 1
    assert topology_of(np.zeros((2, 8, 8), np.float32)) == Topology(1, False)
