"""Lay out rows of small images on a figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from stn.evaluation.pictures.subject import Strip

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
"""Okabe and Ito's, which colour-blind readers can tell apart."""


def sheet(title: str, strips: Sequence[Strip | None]) -> Figure:
    """Stack the strips from top to bottom; None leaves a gap."""
    columns = max(len(strip.images) for strip in strips if strip)
    heights = [1.0 if strip else 0.24 for strip in strips]
    size = 0.95 if columns > 4 else 1.25
    height = 1.06 * size * sum(heights)
    figure = Figure(figsize=(size * columns, height))
    ratios = {"height_ratios": heights, "hspace": 0.06, "wspace": 0.06}
    no_ticks = {"xticks": [], "yticks": []}
    table = figure.subplots(len(strips), columns, squeeze=False, gridspec_kw=ratios, subplot_kw=no_ticks)
    figure.subplots_adjust(0, 0, 1, 1)
    for axes, strip in zip(table, strips, strict=True):
        for axis in axes[len(strip.images) if strip else 0 :]:
            axis.set_axis_off()
        if strip:
            _draw_strip(axes, strip)
    titles = strips[0].titles if strips[0] else ()
    above = 0.06 + 0.14 * max((text.count("\n") + 1 for text in titles), default=0)
    figure.suptitle(title, fontsize=10, y=1 + above / height, va="bottom")
    return figure


def _draw_strip(axes: Sequence[Axes], strip: Strip) -> None:
    axes[0].set_ylabel(strip.label, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
    for j, (axis, image_CHW) in enumerate(zip(axes, strip.images, strict=False)):
        shown = image_CHW.permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy()
        axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.spines[:].set_color("0.75")
        if strip.titles:
            axis.set_title(strip.titles[j], fontsize=8, pad=3)
        if strip.outlines:
            _draw_outlines(axis, strip.outlines, j, image_CHW.shape[1:])


def _draw_outlines(axis: Axes, outlines: Sequence[Tensor], j: int, side: Sequence[int]) -> None:
    for lines, colour in zip(outlines, COLOURS * len(outlines), strict=False):
        x, y = lines[j].T.tolist()
        axis.plot(x, y, color=colour, lw=1.4, clip_on=True)
        axis.plot(x[:1], y[:1], "o", color=colour, ms=3.5)  # the corner that becomes the upper left one
    # As much around the images as the widest outline needs, up to half a side.
    reach = max(float((lines - (side[0] - 1) / 2).abs().max()) for lines in outlines) - side[0] / 2
    margin = min(max(reach, 0) + 1, side[0] / 2)
    axis.set(xlim=(-0.5 - margin, side[1] - 0.5 + margin), ylim=(side[0] - 0.5 + margin, -0.5 - margin))
