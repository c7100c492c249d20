"""The charts of a report as files, PNG and SVG. Must not know run directories."""

import io
from collections.abc import Sequence
from pathlib import Path
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from launch.report.analysis.charts import Chart
from launch.report.analysis.sections import Section
from launch.report.analysis.tables import MOST_IN_MATRIX, Metric, Table
from launch.report.output.markdown import file_name
from stn.runs.files import write_atomic

COLOURS = ("#0072b2", "#d55e00", "#007a59", "#a8457f", "#9a6a00", "#5a5a5a", "#7a3e9d", "#2b7fae")
"""After Okabe and Ito; shapes and dashes tell architectures apart as well."""
MARKS, DASHES = "os^Dv", ("-", "--", ":", "-.")

NAMES = ("pairs", "seeds", "curves", "cost", "confusion", "pose")
"""Of files, behind that of the data set."""
MOST_TILES = 12
FALLBACKS = ("Noto Sans CJK JP", "Noto Sans", "Arial Unicode MS", "Hiragino Sans", "MS Gothic", "WenQuanYi Zen Hei")
"""For names in other scripts, where one of them is installed."""


def _style(i: int) -> tuple[str, str, str]:
    return COLOURS[i % 8], MARKS[i % 5], DASHES[i // 8 % 4]


def _short(label: str, most: int = 32) -> str:
    """Without its middle: settings differ at the end. A dollar sign would begin a formula."""
    half = most // 2
    return (label if len(label) <= most else f"{label[: most - half - 1]}…{label[-half:]}").replace("$", r"\$")


def _whisker(axis: Axes, x: float, ends: list[float], k: float, colour: str) -> None:
    mean, low, high = ends
    if low is not None:
        axis.plot([x, x], [k * low, k * high], color=colour, lw=2.5, solid_capstyle="butt")
    axis.plot([x], [k * mean], marker="_", color=colour, ms=15, mew=2.5)


def seeds(found: Sequence[Chart], metric: Metric) -> Figure | None:
    """Every seed of every architecture."""
    own = [(i, one) for i, one in enumerate(found) if one["values"][metric.key]["seeds"]]
    if not own:
        return None
    figure = Figure(figsize=(max(5.0, 1.3 * len(own) + 1.5), 4.2), layout="constrained")
    axis = figure.subplots()
    for place, (i, one) in enumerate(own):
        colour, mark, _ = _style(i)
        values = list(one["values"][metric.key]["seeds"].values())
        x = [place - 0.12 + 0.4 * ((0.618034 * j) % 1 - 0.5) for j in range(len(values))]
        axis.plot(x, [metric.scale * v for v in values], mark, color=colour, ms=4.5, alpha=0.55, mew=0)
        _whisker(axis, place + 0.25, one["values"][metric.key]["mean"], metric.scale, colour)
    turned = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if len(own) > 4 else {}
    axis.set_xticks(range(len(own)), [_short(one["label"], 18) for _, one in own], **turned)
    axis.set(ylabel=metric.axis)
    return figure


def curves(found: Sequence[Chart]) -> Figure | None:
    """Error against epoch."""
    own = [(i, one) for i, one in enumerate(found) if one["curve"]]
    if not own:
        return None
    figure = Figure(figsize=(9.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for i, one in own:
        (colour, mark, dash), c = _style(i), one["curve"]
        each = [
            [(x, 100 * v) for x, v in zip(c["x"], values, strict=True) if v is not None]
            for values in c["seeds"].values()
        ]
        axis.add_collection(LineCollection(each, colors=colour, lw=0.5, alpha=0.25))
        band = [j for j, low in enumerate(c["low"]) if low is not None]
        low, high = ([100 * c[end][j] for j in band] for end in ("low", "high"))
        axis.fill_between([c["x"][j] for j in band], low, high, color=colour, alpha=0.16, lw=0)
        mean = [100 * v for v in c["mean"]]
        axis.plot(c["x"], mean, dash, color=colour, marker=mark, ms=4, lw=1.8, label=_short(one["label"]))
    errors = [v for _, one in own for values in one["curve"]["seeds"].values() for v in values if v is not None]
    least, most = 100 * min(errors), 100 * max(errors)
    axis.set(xlabel="epoch", ylabel="error (%)", yscale="log" if least > 0 else "linear")
    axis.set_ylim(*((least / 1.1, most * 1.1) if least > 0 else (0, most * 1.05 or 1)))  # intervals may end beyond
    for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.grid(alpha=0.3, which="both")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure


def cost(found: Sequence[Chart], metric: Metric) -> Figure | None:
    """Error against parameters and against seconds."""
    own = [(i, one) for i, one in enumerate(found) if one["values"][metric.key]["seeds"]]
    names = {"params": "parameters", "seconds": "seconds of a seed"}
    kinds = [key for key in names if any(one["costs"][key] for _, one in own)]
    if not kinds:
        return None
    figure = Figure(figsize=(5 * len(kinds) + 2, 4), layout="constrained")
    for axis, key in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for i, one in own:
            colour, mark, _ = _style(i)
            if one["costs"][key]:
                mean = one["values"][metric.key]["mean"]
                _whisker(axis, one["costs"][key], mean, metric.scale, colour)
                axis.plot([one["costs"][key]], [metric.scale * mean[0]], mark, color=colour, label=_short(one["label"]))
        axis.set(xlabel=names[key], ylabel=metric.axis)
        axis.grid(alpha=0.3)
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside right upper")
    return figure


def _tiles(found: Sequence[Chart], kind: str) -> list[tuple[Axes, Chart, int]]:
    """A small figure for each architecture that has something to show."""
    own = [(i, one) for i, one in enumerate(found) if one[kind]]
    if not own:
        return []
    of, own = len(own), own[:MOST_TILES]
    columns = min(4, len(own))
    lines = -(-len(own) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.3 * lines), layout="constrained")
    if of > len(own):
        figure.suptitle(f"The first {len(own)} of {of}", fontsize=9)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(own) :]:
        axis.set_axis_off()
    for axis, (_, one) in zip(axes, own, strict=False):
        axis.set_title(_short(one["label"], 26), fontsize=9)
    return [(axis, one, i) for axis, (i, one) in zip(axes, own, strict=False)]


def confusion(found: Sequence[Chart]) -> Figure | None:
    """Shares of each class by answer."""
    tiles = _tiles(found, "confusion")
    for axis, one, _ in tiles:
        mean = one["confusion"]["mean"]
        shares = [[v / (sum(line) or 1) for v in line] for line in mean]
        axis.imshow([[share**0.4 for share in line] for line in shares], cmap="Blues", vmin=0, vmax=1)
        for i, line in enumerate(shares if len(mean) <= 12 else []):
            for j, share in enumerate(line):
                text = "" if not share else f"{100 * share:.1f}" if share < 0.1 else f"{100 * share:.0f}"
                axis.text(j, i, text, ha="center", va="center", fontsize=4.5, color="w" if share > 0.2 else "k")
        axis.set(xlabel="answer (% of the class)", ylabel="true class")
    return tiles[0][0].figure if tiles else None  # type: ignore[return-value]


def pose(found: Sequence[Chart]) -> Figure | None:
    """Predicted against applied pose, on the same axes."""
    tiles = _tiles(found, "pose")
    reach = 1.05 * max((abs(y) for _, one, _ in tiles for _, y in one["pose"]["points"]), default=1.0) or 1.0
    for axis, one, i in tiles:
        unit, points = one["pose"]["unit"], one["pose"]["points"]
        axis.plot(*zip(*points, strict=True), _style(i)[1], color=_style(i)[0], ms=3, alpha=0.4, mew=0)
        axis.axline((0, 0), slope=1, color="0.6", ls="--", lw=1)
        slope, intercept = one["pose"]["slope"], one["pose"]["intercept"]
        if slope is not None and intercept is not None:
            axis.axline((0, intercept), slope=slope, color="0.1", lw=1.2)
            axis.set_title(f"{axis.get_title()}\ny = {slope:.2f} x {intercept:+.1f}", fontsize=9)
        axis.set(xlabel=f"applied ({unit})", ylabel=f"predicted ({unit})", ylim=(-reach, reach))
    return tiles[0][0].figure if tiles else None  # type: ignore[return-value]


def pairs(table: Table, metric: Metric) -> Figure:
    """The matrix of differences, row minus column."""
    n = len(table.rows)
    side = max(4.0, 0.85 * n + 1.6)
    figure = Figure(figsize=(side, 0.75 * side), layout="constrained")
    axis = figure.subplots()
    shades = {"better": "#bfe0f7", "worse": "#fbd0ac"}
    marks = {"better": "▲ ", "worse": "▼ ", "real": "≠ ", "weak": "≈ ", "few": "? "}
    for i, row in enumerate(table.rows):
        for j, value in enumerate(row[1:]):
            shade = shades.get(value.mark, "#f1f1f1")
            axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shade, edgecolor="w", lw=2))
            axis.text(j, i, marks.get(value.mark, "") + value.text, ha="center", va="center", fontsize=8)
    labels = [_short(row[0].text, 18) for row in table.rows]
    axis.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axis.set_xticks(range(n), labels, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(n), labels, fontsize=8)
    axis.set_title(f"{metric.title}: row - column{metric.difference}", fontsize=9)
    return figure


def save(figure: Figure, path: Path) -> None:
    families = [*rcParams["font.family"], *(name for name in FALLBACKS if name in get_font_names())]
    with rc_context({"svg.hashsalt": "stn", "svg.fonttype": "none", "font.family": families}), catch_warnings():
        filterwarnings("ignore", r"Glyph .* missing")  # a box in the PNG; the SVG has the text itself
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once is enough, and takes longer than all else
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
            write_atomic(path.with_suffix(f".{kind}"), buffer.getvalue())


def draw(section: Section, folder: Path) -> list[Path]:
    """All figures of a data set, under the metric that it is judged by."""
    found, (metric, matrix) = section.charts[:MOST_IN_MATRIX], (section.panels[0].metric, section.panels[0].matrix)
    first = [pairs(matrix, metric) if matrix else None, seeds(found, metric), curves(found)]
    paths = []
    for name, figure in zip(NAMES, [*first, cost(found, metric), confusion(found), pose(found)], strict=True):
        if figure:
            path = folder / file_name(section.name, name)
            save(figure, path)
            paths.append(path)
    return paths
