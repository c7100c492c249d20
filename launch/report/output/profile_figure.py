"""The performance profiles over all data sets, drawn with matplotlib; the page shows its SVG."""

import numpy as np
from matplotlib.figure import Figure

from launch.report.across.overview import Across
from launch.report.output.lines import short, style

MOST_STEPS = 100
"""Steps of a profile that are drawn; the page carries the drawing."""


def profile_figure(across: Across) -> Figure:
    """Draw the share of results within an error, with its interval."""
    figure = Figure(figsize=(9.5, 4.5), layout="constrained")
    axis = figure.subplots()
    scale = across.metric.scale
    for i, each in enumerate(across.profiles):
        colour, _, dash = style(i)
        at = np.unique(np.linspace(0, len(each.x) - 1, min(len(each.x), MOST_STEPS)).round().astype(int))
        x = scale * each.x[at]
        axis.fill_between(x, each.low[at], each.high[at], step="post", color=colour, alpha=0.16, lw=0)
        axis.step(x, each.share[at], dash, where="post", color=colour, lw=1.8, label=short(each.label))
    unit = f" ({across.metric.unit})" if across.metric.unit else ""
    positive = all(each.x[0] > 0 for each in across.profiles)
    axis.set(xlabel=f"{'error' if across.metric.higher_is_better else 'value'}{unit}", ylim=(0, 1))
    axis.set(ylabel="share of results within it", xscale="log" if positive else "linear")
    axis.xaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
    axis.grid(alpha=0.3, which="both")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure
