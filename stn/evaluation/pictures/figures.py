"""Draw what the plans say, with matplotlib and without PyTorch."""

import io
import math

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stn.evaluation.pictures.plans import Confusion, Curves, Plan, Pose, Poses, Sheet
from stn.evaluation.pictures.sheet import sheet

MOST_WITH_NUMBERS = 30
"""Classes whose confusion matrix has numbers; each is a text that takes time and memory."""


def png(plan: Plan) -> bytes:
    """Return a PNG of what is on the figure; bbox_inches="tight" would do the same and draw it twice."""
    figure = draw(plan)
    figure.set_dpi(120)
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()).padded(0.08)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches=box)
    return buffer.getvalue()


def draw(plan: Plan) -> Figure:
    match plan:
        case Sheet():
            return sheet(plan.title, plan.strips)
        case Curves():
            return _curves(plan)
        case Confusion():
            return _confusion(plan)
        case Poses():
            return _poses(plan)


def _curves(plan: Curves) -> Figure:
    styles = [{"label": "training", "color": "tab:blue"}, {"label": plan.split, "color": "tab:orange", "marker": "o"}]
    figure = Figure(figsize=(10, 3.8))
    axes = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "right": 0.99, "bottom": 0.13, "top": 0.91, "wspace": 0.23})
    for axis, (quantity, lines) in zip(axes, plan.charts.items(), strict=True):
        for line in lines:
            axis.plot(line.epochs, line.values, ms=4, lw=1.2, **styles[line.evaluation])
        axis.set(xlabel="epoch", ylabel=quantity, yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend(handles=axis.lines[:2])  # the first seed's
    figure.suptitle(plan.title)
    return figure


def _confusion(plan: Confusion) -> Figure:
    share_KK = plan.mean_KK / plan.mean_KK.sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(6, 5.4))
    axis = figure.subplots()
    axis.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    K = len(share_KK)
    for i, j in zip(*plan.mean_KK.nonzero(), strict=True) if K <= MOST_WITH_NUMBERS else ():
        colour = "white" if share_KK[i, j] > 0.5 else "black"
        axis.text(j, i, f"{plan.mean_KK[i, j]:.4g}", ha="center", va="center", fontsize=7, color=colour)
    ticks = range(0, K, -(-K // MOST_WITH_NUMBERS))
    axis.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    axis.set_title(plan.title, fontsize=10)
    return figure


def _poses(plan: Poses) -> Figure:
    figure = Figure(figsize=(5.2 * len(plan.kinds), 4.6))
    for axis, pose in zip(figure.subplots(1, len(plan.kinds), squeeze=False)[0], plan.kinds, strict=True):
        _plot_pose(axis, pose)
    figure.suptitle(plan.title, fontsize=10)
    return figure


def _plot_pose(axis: Axes, pose: Pose) -> None:
    N, coordinates = pose.applied_NK.shape
    for j, name in enumerate(("x", "y") if coordinates == 2 else (None,)):
        colour = ("#0072B2", "#009E73")[j]
        x, y = pose.applied_NK[:, j], pose.predicted_NK[:, j]
        axis.scatter(x, y, s=9, alpha=0.25, color=colour, linewidths=0, label=name)
    axis.axline((0, 0), slope=1, color="0.6", ls="--", lw=1, label="all undone")
    if math.isfinite(pose.summary["slope"]):
        intercept = (0, pose.summary["intercept"])
        axis.axline(intercept, slope=pose.summary["slope"], color="#D55E00", lw=1.2, label="orthogonal fit")
    limits = [*axis.get_xlim(), *axis.get_ylim()]
    square = (min(limits), max(limits))
    labels = {"xlabel": f"applied {pose.label}", "ylabel": f"predicted {pose.label}"}
    axis.set(xlim=square, ylim=square, aspect="equal", **labels)
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in pose.summary.items())
    axis.set_title(f"{numbers} (n = {N:,})", fontsize=10)
    axis.grid(alpha=0.3)
    for handle in axis.legend(fontsize=8).legend_handles:
        handle.set_alpha(1)  # type: ignore[union-attr]
