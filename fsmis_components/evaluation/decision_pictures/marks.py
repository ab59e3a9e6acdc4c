"""Grey slices and what is marked on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.patheffects import Normal, Stroke

from fsmis_components.data.geometry import display_plane

# Okabe and Ito: three colours that colour-blind readers tell apart, on grey as well
FOUND = "#e69f00"
FOREGROUND = "#56b4e9"
BACKGROUND = "#cc79a7"
_GAMMA = 0.6  # of the grey slices: fat and kidneys outshine the rest


class Mark(Protocol):
    """Something that is drawn on a slice in one colour."""

    @property
    def colour(self) -> str:
        """The colour."""

    def draw(self, axes: Axes) -> None:
        """Draw it, turned as `display_plane` turns the slice."""


@dataclass(frozen=True)
class Area:
    """A mask (H, W) as a light area within a line."""

    mask: np.ndarray
    colour: str

    def draw(self, axes: Axes) -> None:
        """See `Mark.draw`."""
        Cells(self.mask, self.colour, 0.3).draw(axes)
        if self.mask.any() and not self.mask.all():  # else there is no line
            plane = display_plane(self.mask)
            axes.contour(plane, [0.5], colors=[self.colour], linewidths=1.4)


@dataclass(frozen=True)
class Cells:
    """The pixels of a mask (H, W), as they are."""

    mask: np.ndarray
    colour: str
    opacity: float = 0.75

    def draw(self, axes: Axes) -> None:
        """See `Mark.draw`."""
        picture = np.zeros((*self.mask.shape, 4))
        picture[self.mask] = to_rgba(self.colour, self.opacity)
        axes.imshow(display_plane(picture), interpolation="nearest")


@dataclass(frozen=True)
class Points:
    """Places (K, 2) of row and column on a slice of a size."""

    places: np.ndarray
    size: tuple[int, ...]
    marker: str
    colour: str

    def draw(self, axes: Axes) -> None:
        """See `Mark.draw`."""
        across = self.size[0] - 1 - self.places[:, 0]
        down = self.size[1] - 1 - self.places[:, 1]
        look: dict[str, Any] = {"marker": self.marker, "edgecolors": "black", "linewidths": 0.5}
        axes.scatter(across, down, s=16, c=self.colour, **look)


def draw_grey(axes: Axes, pixels: np.ndarray) -> None:
    """A slice (H, W) in grey, the brightest and darkest pixels clipped."""
    plane = display_plane(pixels)
    low, high = np.quantile(plane, (0.01, 0.99))
    window = PowerNorm(_GAMMA, low, max(high, low + 1e-6), clip=True)
    axes.imshow(plane, cmap="gray", norm=window)


def draw_outline(axes: Axes, mask: np.ndarray) -> None:
    """A dashed line in white on black, which is seen on grey and on every colour."""
    if mask.any():
        lines = axes.contour(
            display_plane(mask), [0.5], colors=["white"], linewidths=1.1, linestyles=[(0, (3, 1.5))]
        )
        lines.set_path_effects([Stroke(linewidth=2.2, foreground="black"), Normal()])
