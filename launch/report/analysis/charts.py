"""The numbers behind the charts of a report, as JSON: the page and the figures draw the same ones."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from launch.report.analysis.cells import Cell, is_number
from launch.report.analysis.metrics import POSE_UNITS, Metric
from launch.report.analysis.stats import summary
from stn.runs.directory import Row

Chart = dict[str, Any]
MOST_EVALUATIONS = 60
"""Points of a learning curve; a longer one is thinned to every second, third, ... evaluation, and keeps the last."""
MOST_POINTS = 400
"""Points of a pose chart."""


def _round(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def over_seeds(columns: Iterable[Sequence[float]]) -> Chart:
    """Return mean with interval, and median with range, of the seeds' values in each column."""
    columns = list(columns)
    summaries = [summary(values) for values in columns]
    lines: Chart = {key: [_round(getattr(s, key)) for s in summaries] for key in ("mean", "low", "high")}
    lines |= {"median": [_round(median(values)) for values in columns]}
    return lines | {"least": [_round(min(c)) for c in columns], "most": [_round(max(c)) for c in columns]}


def curve(cell: Cell) -> Chart | None:
    """Return error against epoch: every seed, and what they are together."""
    key = f"{cell.config.data.split}_acc"
    errors: dict[int, dict[float, float]] = {}
    for seed, rows in sorted(cell.metrics["eval"].items()):
        accuracies = {float(row["epoch"]): row.get(key) for row in rows if is_number(row.get("epoch"))}
        errors[seed] = {epoch: 1 - acc for epoch, acc in accuracies.items() if is_number(acc)}
    epochs = sorted({epoch for points in errors.values() for epoch in points})
    if not epochs:
        return None
    stride = math.ceil(len(epochs) / MOST_EVALUATIONS)
    epochs = epochs[::-1][::stride][::-1]
    seeds = {str(seed): [_round(points.get(epoch), 5) for epoch in epochs] for seed, points in errors.items()}
    together = over_seeds([points[epoch] for points in errors.values() if epoch in points] for epoch in epochs)
    return {"x": [_round(epoch) for epoch in epochs], "seeds": seeds} | together


def _array(value: object) -> np.ndarray:
    """Return what was read as an array; an empty one if it is ragged or not numeric."""
    try:
        return np.asarray(value, dtype=float)
    except (ValueError, TypeError, OverflowError):
        return np.empty(0)


def confusion(cell: Cell) -> Chart | None:
    """Return images by true and predicted class: mean, minimum and maximum over seeds; None if their classes differ."""
    matrices = []
    for row in cell.rows.values():
        counts_KK = _array(row.get("confusion"))
        square = counts_KK.ndim == 2 and counts_KK.shape[0] == counts_KK.shape[1] > 0
        if square and ((counts_KK >= 0) & (counts_KK < 1e15)).all():
            matrices.append(counts_KK)
    if len({counts_KK.shape for counts_KK in matrices}) != 1:
        return None
    counts_SKK = np.asarray(matrices)
    return {
        "n": len(matrices),
        "mean": [[_round(value) for value in line] for line in counts_SKK.mean(0)],
        "least": counts_SKK.min(0).astype(int).tolist(),
        "most": counts_SKK.max(0).astype(int).tolist(),
    }


def pose(cell: Cell) -> Chart | None:
    """Return predicted against applied pose over all seeds, of the first kind of pose that the data set has."""
    last = [rows[-1] for rows in cell.metrics["pose"].values()]
    kind = next((kind for kind in POSE_UNITS for row in last if kind in row), "")
    points_N2 = np.concatenate([np.empty((0, 2)), *(_pose_points(row, kind) for row in last)])
    if not len(points_N2):
        return None
    # Drawn at random: a fixed stride would pick the same images, or x alone, of every seed.
    chosen = sorted(np.random.default_rng(0).permutation(len(points_N2))[:MOST_POINTS])
    chart: Chart = {"unit": POSE_UNITS[kind], "points": points_N2[chosen].tolist()}
    for name in ("slope", "intercept"):
        values = cell.values(f"pose_{name}").values()
        chart[name] = _round(fmean(values)) if values else None
    return chart


def _pose_points(row: Row, kind: str) -> np.ndarray:
    """Return applied and predicted values; x and y of a shift are two points."""
    poses = row.get(kind)
    if not isinstance(poses, dict):
        return np.empty((0, 2))
    applied, predicted = _array(poses.get("applied")), _array(poses.get("predicted"))
    if applied.shape != predicted.shape:
        return np.empty((0, 2))
    points_N2 = np.stack([applied.ravel(), predicted.ravel()], axis=1)
    return points_N2[np.abs(points_N2.sum(1)) < 1e100]  # as is_number


def costs(cell: Cell) -> Chart:
    """Return the median cost of a seed; its time is its share of the time of the seeds that trained together."""
    fused, seconds = cell.values("fused"), cell.values("wall_s")
    by_key = {key: list(cell.values(key).values()) for key in ("params", "images_per_s")}
    by_key["seconds"] = [seconds[seed] / (fused.get(seed) or 1) for seed in seconds]
    return {key: _round(median(values)) if values else None for key, values in by_key.items()}


def metric_values(cell: Cell, metric: Metric) -> Chart:
    """Return a metric of every seed, with mean and interval, median and range; accuracies as errors."""
    values = cell.values(metric.key)
    if metric.is_accuracy:
        values = {seed: 1 - value for seed, value in values.items()}
    together = over_seeds([list(values.values())]) if values else None
    mean, middle = (
        [together[key][0] for key in keys] if together else [None] * 3
        for keys in (("mean", "low", "high"), ("median", "least", "most"))
    )
    return {"seeds": {str(seed): _round(value) for seed, value in values.items()}, "mean": mean, "median": middle}


def build_chart(cell: Cell, metrics: Sequence[Metric]) -> Chart:
    """Return what the charts of a data set draw of one architecture."""
    values = {metric.key: metric_values(cell, metric) for metric in metrics}
    drawn = {"curve": curve(cell), "confusion": confusion(cell), "pose": pose(cell), "costs": costs(cell)}
    return {"label": cell.label, "values": values} | drawn
