"""Draws the charts of a report with matplotlib."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from launch.report.analysis.charts import Chart
from launch.report.analysis.metrics import Metric
from launch.report.analysis.sections import Panel, Section
from launch.report.analysis.tables import MOST_IN_MATRIX
from launch.report.output.drawing import KINDS, save
from launch.report.output.lines import error_lines, short, style

MOST_TILES = 12


def _whisker(axis: Axes, x: float, values: Chart, metric: Metric, colour: str) -> None:
    mean, low, high = values["mean"]
    if low is not None:
        axis.plot([x, x], [metric.scale * low, metric.scale * high], color=colour, lw=2.5, solid_capstyle="butt")
    axis.plot([x], [metric.scale * mean], marker="_", color=colour, ms=15, mew=2.5)


def _measured(charts: list[Chart], metric: Metric) -> list[tuple[int, Chart, Chart]]:
    """Return index, chart and values of the architectures that have this metric."""
    numbered = [(i, chart, chart["values"][metric.key]) for i, chart in enumerate(charts)]
    return [(i, chart, values) for i, chart, values in numbered if values["seeds"]]


def seeds(charts: list[Chart], metric: Metric) -> Figure:
    """Draw every seed of every architecture, with mean and interval."""
    measured = _measured(charts, metric)
    figure = Figure(figsize=(max(5.0, 1.3 * len(measured) + 1.5), 4.2), layout="constrained")
    axis = figure.subplots()
    for position, (i, _, values) in enumerate(measured):
        colour, mark, _ = style(i)
        ys = [metric.scale * y for y in values["seeds"].values()]
        # Multiples of the golden ratio spread neighbouring seeds evenly.
        xs = [position - 0.12 + 0.4 * ((0.618034 * j) % 1 - 0.5) for j in range(len(ys))]
        axis.plot(xs, ys, mark, color=colour, ms=4.5, alpha=0.55, mew=0)
        _whisker(axis, position + 0.25, values, metric, colour)
    turned = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if len(measured) > 4 else {}
    axis.set_xticks(range(len(measured)), [short(chart["label"], 18) for _, chart, _ in measured], **turned)
    axis.set(ylabel=metric.axis)
    return figure


def curves(charts: list[Chart]) -> Figure:
    """Draw error against epoch."""
    figure = Figure(figsize=(9.5, 4.5), layout="constrained")
    error_lines(figure.subplots(), [(chart["label"], chart["curve"]) for chart in charts], "epoch")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def cost(charts: list[Chart], metric: Metric) -> Figure:
    """Draw error against parameters and against seconds."""
    measured = _measured(charts, metric)
    names = {"params": "parameters", "seconds": "seconds per seed"}
    kinds = [kind for kind in names if any(chart["costs"][kind] for _, chart, _ in measured)]
    figure = Figure(figsize=(5 * len(kinds) + 2, 4), layout="constrained")
    handles = {}
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for i, chart, values in measured:
            if x := chart["costs"][kind]:
                colour, mark, _ = style(i)
                _whisker(axis, x, values, metric, colour)
                y = metric.scale * values["mean"][0]
                (handles[short(chart["label"])],) = axis.plot([x], [y], mark, color=colour)
        axis.set(xlabel=names[kind], ylabel=metric.axis)
        axis.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside right upper")
    return figure


def _tiles(charts: list[Chart], kind: str) -> tuple[Figure, list[tuple[Axes, Chart, int]]]:
    """Return a figure with axes for every architecture that has a chart of this kind, up to MOST_TILES."""
    available = [(i, chart) for i, chart in enumerate(charts) if chart[kind]]
    shown = available[:MOST_TILES]
    columns, lines = min(4, len(shown)), -(-len(shown) // 4)
    figure = Figure(figsize=(3.3 * columns, 3.3 * lines), layout="constrained")
    if len(shown) < len(available):
        figure.suptitle(f"The first {len(shown)} of {len(available)}", fontsize=9)
    tiles = []
    for position, (i, chart) in enumerate(shown, start=1):
        axis = figure.add_subplot(lines, columns, position)
        axis.set_title(short(chart["label"], 26), fontsize=9)
        tiles.append((axis, chart[kind], i))
    return figure, tiles


def confusion(charts: list[Chart]) -> Figure:
    """Draw the share of every class by predicted class."""
    figure, tiles = _tiles(charts, "confusion")
    for axis, chart, _ in tiles:
        counts_KK = np.array(chart["mean"])
        shares_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1e-9)  # a class may have no images
        axis.imshow(shares_KK**0.4, cmap="Blues", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares_KK if len(shares_KK) <= 12 else []):
            text = "" if not share else f"{100 * share:.1f}" if share < 0.1 else f"{100 * share:.0f}"
            about = {"fontsize": 4.5, "color": "w" if share > 0.2 else "k"}
            # Measuring a hundred of them for the layout took a third of the figure's time.
            axis.text(j, i, text, ha="center", va="center", in_layout=False, **about)
        axis.set(xlabel="predicted class (% of the true class)", ylabel="true class")
    return figure


def pose(charts: list[Chart]) -> Figure:
    """Draw predicted against applied pose, with the same limits for every architecture."""
    figure, tiles = _tiles(charts, "pose")
    limit = 1.05 * max(abs(y) for _, chart, _ in tiles for _, y in chart["points"]) or 1.0
    for axis, chart, i in tiles:
        colour, mark, _ = style(i)
        axis.plot(*zip(*chart["points"], strict=True), mark, color=colour, ms=3, alpha=0.4, mew=0)
        axis.axline((0, 0), slope=1, color="0.6", ls="--", lw=1)
        slope, intercept, unit = chart["slope"], chart["intercept"], chart["unit"]
        if slope is not None and intercept is not None:
            axis.axline((0, intercept), slope=slope, color="0.1", lw=1.2)
            axis.set_title(f"{axis.get_title()}\ny = {slope:.2f} x {intercept:+.1f}", fontsize=9)
        axis.set(xlabel=f"applied ({unit})", ylabel=f"predicted ({unit})", ylim=(-limit, limit))
    return figure


def pairs(panel: Panel) -> Figure:
    """Draw the matrix of differences, row minus column."""
    assert panel.matrix
    rows, n = panel.matrix.rows, len(panel.matrix.rows)
    side = max(4.0, 0.85 * n + 1.6)
    figure = Figure(figsize=(side, 0.75 * side), layout="constrained")
    axis = figure.subplots()
    marks = {"better": "▲ ", "worse": "▼ ", "real": "≠ ", "equal": "= ", "unknown": "? "}
    for i, row in enumerate(rows):
        for j, entry in enumerate(row[1:]):
            shade = {"better": "#bfe0f7", "worse": "#fbd0ac"}.get(entry.mark, "#f1f1f1")
            axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shade, edgecolor="w", lw=2))
            axis.text(j, i, marks.get(entry.mark, "") + entry.text, ha="center", va="center", fontsize=8)
    labels = [short(row[0].text, 18) for row in rows]
    axis.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axis.set_xticks(range(n), labels, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(n), labels, fontsize=8)
    axis.set_title(f"{panel.metric.title}: row - column{panel.metric.difference_unit}", fontsize=9)
    return figure


def applied(charts: list[Chart]) -> Figure:
    """Draw error against each applied pose."""
    names = list(dict.fromkeys(name for chart in charts for name in chart["applied"] or {}))
    figure = Figure(figsize=(5.2 * len(names) + 2, 4.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        error_lines(axis, [(chart["label"], (chart["applied"] or {}).get(name)) for chart in charts], name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside right upper")
    return figure


def hardest(section: Section) -> Figure:
    """Draw the hardest images with their numbers and classes."""
    images = section.images.hardest
    columns = min(6, len(images))
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.9 * lines), layout="constrained")
    for i, image in enumerate(images):
        axis = figure.add_subplot(lines, columns, i + 1)
        axis.imshow(image.pixels, cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{image.number:,}\nclass {image.label}", fontsize=8)
        axis.set_axis_off()
    return figure


def draw(section: Section, folder: Path, *more: str) -> None:
    """Write the figures of a section, under the metric that its data set is judged by; also in more formats."""
    charts, panel = section.charts[:MOST_IN_MATRIX], section.panels[0]
    drawings = {"pairs": lambda: pairs(panel), "curves": lambda: curves(charts), "pose": lambda: pose(charts)}
    drawings |= {"seeds": lambda: seeds(charts, panel.metric), "cost": lambda: cost(charts, panel.metric)}
    drawings |= {"confusion": lambda: confusion(charts), "applied": lambda: applied(charts)}
    drawings |= {"hardest": lambda: hardest(section)}
    for kind, name in section.figures.items():
        save(drawings[kind](), folder / name, (*KINDS, *more))
