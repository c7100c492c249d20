"""Draws what a report says image by image: error against applied pose, and the hardest images."""

from collections.abc import Callable

from matplotlib.figure import Figure

from launch.report.analysis.charts import Chart
from launch.report.analysis.sections import Section
from launch.report.output.lines import error_lines


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


def drawings(section: Section, charts: list[Chart]) -> dict[str, Callable[[], Figure]]:
    """Return what draws each kind of figure."""
    return {"applied": lambda: applied(charts), "hardest": lambda: hardest(section)}
