"""The 48 orders in which a stored volume can be read as slices, rows and columns."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fsmis_components.data.volumes import Volume

_EITHER = (False, True)


@dataclass(frozen=True)
class StorageOrder:
    """One of the 48 ways to read a stored volume as slices, rows and columns."""

    axes: tuple[int, int, int]  # stored axis of slices, of rows and of columns
    backwards: tuple[bool, bool, bool]  # which of them run against the storage order

    @classmethod
    def every(cls, kept: tuple[int, int] | None = None) -> tuple[StorageOrder, ...]:
        """All 48, or the 16 that keep a stored axis in its place.

        `kept` is a place (0 slices, 1 rows, 2 columns) and the stored axis that is to lie there.
        """
        return tuple(
            cls(axes, backwards)
            for axes in itertools.permutations(range(3), 3)
            if kept is None or axes[kept[0]] == kept[1]
            for backwards in itertools.product(_EITHER, _EITHER, _EITHER)
        )

    @classmethod
    def nearest(
        cls, volume: Volume, frame: np.ndarray, kept: tuple[int, int] | None = None
    ) -> StorageOrder:
        """The order that turns least away from a frame (3, 3): largest trace of the product.

        The frame holds the wanted directions of slices, rows and columns; `kept` as in `every`.
        """
        cosines = frame @ _stored_directions(volume)  # (3 places, 3 stored axes)
        orders = (
            order
            for order in cls.every(kept)
            if order.backwards == tuple(cosines[range(3), order.axes] < 0)
        )

        def nearness(order: StorageOrder) -> tuple[float, ...]:
            # rounded, and with the directions where two orders are equally good, as at 45 degrees:
            # the same is taken on every machine and whatever the storage
            directions = order.directions(volume).round(6) + 0.0
            return float(np.sum(directions * frame).round(6)), *directions.ravel().tolist()

        return max(orders, key=nearness)

    def turn(self, volume: Volume, frame: np.ndarray) -> float:
        """Degrees by which the directions are turned away from a frame of the same handedness."""
        cosine = (float(np.sum(self.directions(volume) * frame)) - 1) / 2
        return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))

    def directions(self, volume: Volume) -> np.ndarray:
        """Unit vectors (3, 3) along slices, rows and columns, one a row."""
        signs = np.where(self.backwards, -1.0, 1.0)
        return _stored_directions(volume).T[list(self.axes)] * signs[:, None]


def _stored_directions(volume: Volume) -> np.ndarray:
    """Unit vectors (right, anterior, superior) along the stored axes, one a column."""
    return volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
