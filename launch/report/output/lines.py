"""How figures show an architecture: its colour, mark and dashes, its label, and its error against something."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

COLOURS = ("#0072b2", "#d55e00", "#007a59", "#a8457f", "#9a6a00", "#5a5a5a", "#7a3e9d", "#2b7fae")
"""After Okabe and Ito. Markers and dashes distinguish architectures as well."""
MARKS, DASHES = "os^Dv", ("-", "--", ":", "-.")


def style(i: int) -> tuple[str, str, str]:
    return COLOURS[i % 8], MARKS[i % 5], DASHES[i // 8 % 4]


def short(label: str, limit: int = 32) -> str:
    """Return a label without its middle, because settings differ at the end; a dollar sign would start a formula."""
    half = limit // 2
    return (label if len(label) <= limit else f"{label[: limit - half - 1]}…{label[-half:]}").replace("$", r"\$")


def error_lines(axis: Axes, charts: Sequence[tuple[str, dict[str, Any] | None]], name: str) -> None:
    """Draw error against x, by label: every seed, mean and interval; None where an architecture has no line."""
    errors: list[float] = []
    for i, (label, line) in enumerate(charts):
        if not line:
            continue
        (colour, mark, dash), xs = style(i), line["x"]
        points = [[*zip(xs, ys, strict=True)] for ys in line["seeds"].values()]
        lines = [[(x, 100 * y) for x, y in of_seed if y is not None] for of_seed in points]
        errors += [y for of_seed in lines for _, y in of_seed]
        axis.add_collection(LineCollection(lines, colors=colour, lw=0.5, alpha=0.25))
        mean, low, high = (100 * np.array(line[key], dtype=float) for key in ("mean", "low", "high"))  # None is nan
        axis.fill_between(xs, low, high, color=colour, alpha=0.16, lw=0)
        axis.plot(xs, mean, dash, color=colour, marker=mark, ms=4, lw=1.8, label=short(label))
    least, most = min(errors), max(errors)
    axis.set(xlabel=name, ylabel="error (%)", yscale="log" if least > 0 else "linear")
    axis.set_ylim(*((least / 1.1, most * 1.1) if least > 0 else (0, most * 1.05 or 1)))  # intervals may end beyond
    axis.yaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
    axis.grid(alpha=0.3, which="both")
