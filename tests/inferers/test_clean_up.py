from __future__ import annotations

import numpy as np

from fsmis_components.inferers.clean_up import Build, build_of, cleaned


def test_the_largest_parts_stay() -> None:
    labels = np.zeros((3, 8, 12), np.uint8)
    labels[0, 0:2, 0:2] = 7  # 4 voxels
    labels[1:3, 4:7, 4:7] = 7  # 18
    labels[0, 0, 9:12] = 7  # 3
    assert (cleaned(labels.copy(), [7], [Build(1, True)]) == 7).sum() == 18
    two = cleaned(labels.copy(), [7], [Build(2, True)])
    assert (two == 7).sum() == 22 and not two[0, 0, 9:].any()


def test_holes_are_filled_where_the_support_has_none() -> None:
    ring = np.zeros((1, 7, 7), np.uint8)
    ring[0, 1:6, 1:6] = 2
    ring[0, 2:5, 2:5] = 0
    ring[0, 3, 3] = 1  # another structure in the hole stays
    solid = cleaned(ring.copy(), [1, 2], [Build(1, True), Build(1, True)])
    assert (solid == 2).sum() == 24 and solid[0, 3, 3] == 1
    open_ = cleaned(ring.copy(), [1, 2], [Build(1, True), Build(1, False)])
    np.testing.assert_array_equal(open_, ring)


def test_an_absent_structure_is_no_trouble() -> None:
    empty = np.zeros((2, 3, 3), np.uint16)
    assert not cleaned(empty, [300], [Build(1, True)]).any()


def test_build_of_shapes() -> None:
    shapes = np.zeros((4, 16, 16), np.float32)
    shapes[:, 1:7, 1:7] = 1.0
    assert build_of(shapes) == Build(1, True)
    shapes[:, 9:15, 9:15] = 1.0
    shapes[0, 0, 15] = 1.0  # a speck is no part
    assert build_of(shapes) == Build(2, True)
    shapes[:, 3:5, 3:5] = 0.0
    assert build_of(shapes) == Build(2, False)
    thin = np.zeros((2, 8, 8), np.float32)
    thin[:, 3, 2:6] = 0.3  # thinner than a cell
    assert build_of(thin).parts == 1
    assert build_of(np.zeros((2, 8, 8), np.float32)) == Build(1, False)
