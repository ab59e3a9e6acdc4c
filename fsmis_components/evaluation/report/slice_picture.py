"""A slice as a grey picture with sharp outlines: label dashed, prediction in colour."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape

import numpy as np
from matplotlib.image import imsave
from skimage.measure import approximate_polygon, find_contours


def slice_picture(
    plane: np.ndarray,
    truth: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    window: tuple[float, float],
    spacing: tuple[float, float],
    caption: str,
) -> str:
    """An HTML figure.

    Args:
        plane: grey values (h, w), turned for display.
        truth: mask (h, w) of the label per structure.
        predicted: mask of the prediction per structure.
        colours: "#rrggbb" per structure.
        window: grey values that become black and white.
        spacing: millimetres per row and column; the picture has the body's proportions.
        caption: stands below the picture.
    """
    height, width = plane.shape[0] * spacing[0], plane.shape[1] * spacing[1]
    found = "".join(
        f'<path d="{path}" fill="{colours[name]}" stroke="{colours[name]}"/>'
        for name, mask in predicted.items()
        if (path := outline(mask))
    )
    label = "".join(outline(mask) for mask in truth.values())
    return (
        f'<figure class="slice"><svg viewBox="0 0 {width:.6g} {height:.6g}" role="img" '
        f'aria-label="{escape(caption)}"><image width="{width:.6g}" height="{height:.6g}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{_png(plane, window)}"/>'
        f'<g transform="scale({spacing[1] / 2:.6g} {spacing[0] / 2:.6g})">'
        f'<g class="prediction">{found}</g><path class="label" d="{label}"/></g></svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def outline(mask: np.ndarray) -> str:
    """The border of a mask (h, w) as an SVG path, in half pixels from the upper left corner."""
    loops = []
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5):
        corners = approximate_polygon(contour, 0.01)[:-1]  # the last point repeats the first
        # padding moved the pixels by one, their centres lie at a half
        points = np.rint(2 * (corners - 0.5)).astype(int)
        loops.append("M" + " ".join(f"{column} {row}" for row, column in points) + "Z")
    return "".join(loops)


def _png(plane: np.ndarray, window: tuple[float, float]) -> str:
    buffer = io.BytesIO()
    low, high = window
    imsave(
        buffer,
        plane,
        vmin=low,
        vmax=max(high, np.nextafter(low, np.inf)),
        cmap="gray",
        format="png",
        metadata={"Software": None},  # type: ignore[dict-item] # no version in the bytes
        pil_kwargs={"optimize": True},
    )
    return base64.b64encode(buffer.getvalue()).decode("ascii")
