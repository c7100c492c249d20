"""Figures: rows of small images on a sheet, and how a picture gets onto the disk."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from stn.runs.files import write_atomic

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
"""Okabe and Ito's, which colour-blind readers can tell apart."""


class Strip(NamedTuple):
    """A row of images in [0, 1], [C, H, W] each."""

    label: str
    images: Tensor | Sequence[Tensor]
    titles: Sequence[str] = ()
    """Over each image."""
    outlines: Sequence[Tensor] = ()
    """Closed lines over each image, [B, points, 2] in its pixels."""


def save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", pad_inches=0.08)
    write_atomic(path, buffer.getvalue())
    return path


def _outline(axis, lines: Sequence[Tensor], side: tuple[int, int], margin: float) -> None:
    for points, colour in zip(lines, COLOURS * len(lines), strict=False):
        x, y = points.T.tolist()
        axis.plot(x, y, color=colour, lw=1.4, clip_on=True)
        axis.plot(x[:1], y[:1], "o", color=colour, ms=3.5)  # the corner that becomes the upper left one
    axis.set(xlim=(-0.5 - margin, side[1] - 0.5 + margin), ylim=(side[0] - 0.5 + margin, -0.5 - margin))


def sheet(title: str, strips: Sequence[Strip | None]) -> Figure:
    """Strips below each other; None leaves a gap."""
    columns, titles = max(len(strip.images) for strip in strips if strip), strips[0].titles if strips[0] else ()
    heights = [1.0 if strip else 0.24 for strip in strips]
    size = 0.95 if columns > 4 else 1.25
    height = 1.06 * size * sum(heights)
    figure = Figure(figsize=(size * columns, height))
    table = figure.subplots(
        len(strips),
        columns,
        squeeze=False,
        gridspec_kw={"height_ratios": heights, "hspace": 0.06, "wspace": 0.06},
        subplot_kw={"xticks": [], "yticks": []},
    )
    figure.subplots_adjust(0, 0, 1, 1)
    for line, strip in zip(table, strips, strict=True):
        for axis in line[len(strip.images) if strip else 0 :]:
            axis.set_axis_off()
        if strip is None:
            continue
        line[0].set_ylabel(strip.label, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
        for j, (axis, image) in enumerate(zip(line, strip.images, strict=False)):
            shown = image.permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy()
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.spines[:].set_color("0.75")
            if strip.titles:
                axis.set_title(strip.titles[j], fontsize=8, pad=3)
            if strip.outlines:
                side = (image.shape[1], image.shape[2])
                beyond = max(float((lines - (side[0] - 1) / 2).abs().max()) for lines in strip.outlines) - side[0] / 2
                # As much around the images as the widest outline needs, up to half a side.
                _outline(axis, [lines[j] for lines in strip.outlines], side, min(max(beyond, 0) + 1, side[0] / 2))
    over = 0.06 + 0.14 * max((text.count("\n") + 1 for text in titles), default=0)
    figure.suptitle(title, fontsize=10, y=1 + over / height, va="bottom")
    return figure
