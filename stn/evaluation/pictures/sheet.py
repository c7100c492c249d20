"""Lay out rows of small images on a figure.

All are on one axis whose unit is a cell: an axis for each would take ten times as long to draw.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stn.evaluation.pictures.plans import Strip

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
_BETWEEN, _GAP = 0.06, 0.24
"""Space between two images, and that of a strip that is None, in cells."""


def sheet(title: str, strips: Sequence[Strip | None]) -> Figure:
    """Stack the strips from top to bottom; None leaves a gap."""
    columns, rows = max(len(strip.images) for strip in strips if strip), sum(1 if strip else _GAP for strip in strips)
    size = 0.95 if columns > 4 else 1.25
    figure = Figure(figsize=(size * columns, size * rows))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows, 0), autoscale_on=False)
    axis.set_axis_off()
    top = 0.0
    for strip in strips:
        if strip:
            _draw_strip(axis, strip, top)
        top += 1 if strip else _GAP
    titles = strips[0].titles if strips[0] else ()
    above = 0.06 + 0.14 * max((text.count("\n") + 1 for text in titles), default=0)
    figure.suptitle(title, fontsize=10, y=1 + above / (size * rows), va="bottom")
    return figure


def _draw_strip(axis: Axes, strip: Strip, top: float) -> None:
    axis.text(-_BETWEEN, top + 0.5, strip.label, ha="right", va="center", fontsize=9)
    for j, image_CHW in enumerate(strip.images):
        frame = Rectangle((j + _BETWEEN / 2, top + _BETWEEN / 2), 1 - _BETWEEN, 1 - _BETWEEN, fill=False, ec="0.75")
        axis.add_patch(frame)
        outlines = [lines[j] for lines in strip.outlines]
        _draw_image(axis, image_CHW, outlines, (j + 0.5, top + 0.5), frame)
        if strip.titles:
            axis.text(j + 0.5, top - 0.01, strip.titles[j], ha="center", va="bottom", fontsize=8)


def _draw_image(
    axis: Axes, image_CHW: np.ndarray, outlines: Sequence[np.ndarray], centre: tuple[float, float], frame: Rectangle
) -> None:
    H, W = image_CHW.shape[1:]
    middle_x, middle_y = (W - 1) / 2, (H - 1) / 2
    # As much around the image as the widest outline needs, up to half a side.
    reach = max((float(abs(lines - middle_y).max()) for lines in outlines), default=0.0) - H / 2
    margin = min(max(reach, 0) + 1, H / 2) if outlines else 0.0
    pixel = (1 - _BETWEEN) / (max(H, W) + 2 * margin)
    left, above = centre[0] - W / 2 * pixel, centre[1] - H / 2 * pixel
    shown = image_CHW.clip(0, 1).transpose(1, 2, 0).squeeze((2,) if len(image_CHW) == 1 else ())
    extent = (left, left + W * pixel, above + H * pixel, above)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    axis.imshow(shown, extent=extent, aspect="auto", interpolation="nearest", **grey)  # type: ignore[arg-type]
    for lines, colour in zip(outlines, COLOURS * len(outlines), strict=False):
        x = [centre[0] + (at - middle_x) * pixel for at in lines[:, 0].tolist()]
        y = [centre[1] + (at - middle_y) * pixel for at in lines[:, 1].tolist()]
        drawn = axis.plot(x, y, color=colour, lw=1.4)
        drawn += axis.plot(x[:1], y[:1], "o", color=colour, ms=3.5)  # what becomes the upper left corner
        for line in drawn:
            line.set_clip_path(frame)  # given to plot, the axis would overrule it
