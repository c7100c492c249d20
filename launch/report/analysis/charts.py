"""What the charts of a report show, as plain numbers: the page and the figures beside it draw the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.report.analysis.cells import Cell, is_number
from launch.report.analysis.stats import summary
from launch.report.analysis.tables import UNITS, Metric
from stn.runs.directory import Row

Chart = dict[str, Any]
MOST_EVALUATIONS = 60
"""Of a curve; of longer ones every second, third, ... is drawn, and the last."""
MOST_POINTS = 400
"""Poses of an architecture."""


def _round(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _thinned(xs: Sequence[float]) -> list[float]:
    every = -(-len(xs) // MOST_EVALUATIONS)
    return [x for i, x in enumerate(reversed(xs)) if i % max(1, every) == 0][::-1]


def curve(cell: Cell) -> Chart | None:
    """Error against epoch: every seed, mean and interval over seeds."""
    key = "val_acc" if cell.config.data.validation else "test_acc"
    of: dict[int, dict[float, float]] = {}
    for seed, rows in sorted(cell.metrics["eval"].items()):
        points = {float(row["epoch"]): row.get(key) for row in rows if is_number(row.get("epoch"))}
        of[seed] = {x: 1 - y for x, y in points.items() if is_number(y)}
    xs = _thinned(sorted({x for points in of.values() for x in points}))
    if not xs:
        return None
    found = [summary([points[x] for points in of.values() if x in points]) for x in xs]
    return {
        "x": [_round(x) for x in xs],
        "seeds": {str(seed): [_round(points.get(x), 5) for x in xs] for seed, points in of.items()},
        "mean": [_round(one.mean) for one in found],
        "low": [_round(one.low) for one in found],
        "high": [_round(one.high) for one in found],
    }


def confusion(cell: Cell) -> Chart | None:
    """Images by class and answer: mean, least and most over seeds; none where seeds differ in their classes."""
    given = [matrix for row in cell.rows.values() if _is_confusion(matrix := _array(row.get("confusion")))]
    if len({matrix.shape for matrix in given}) != 1:
        return None
    counts = np.asarray(given)
    mean = [[_round(value) for value in line] for line in counts.mean(0)]
    least, most = counts.min(0).astype(int).tolist(), counts.max(0).astype(int).tolist()
    return {"n": len(given), "mean": mean, "least": least, "most": most}


def _array(given: object) -> np.ndarray:
    """What was read, as numbers; an empty one where it is none, or ragged."""
    try:
        return np.asarray(given, dtype=float)
    except (ValueError, TypeError, OverflowError):
        return np.empty(0)


def _is_confusion(matrix: np.ndarray) -> bool:
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0
    return square and bool(((matrix >= 0) & (matrix < 1e15)).all())


def pose(cell: Cell) -> Chart | None:
    """Predicted against applied pose of the first kind that the data set has, over all seeds."""
    last = [rows[-1] for rows in cell.metrics["pose"].values()]
    kind = next((kind for kind in UNITS for row in last if kind in row), None)
    if kind is None:
        return None
    points = [pair for row in last for pair in _pairs(row, kind)]
    if not points:
        return None
    some = sorted(np.random.default_rng(0).permutation(len(points))[:MOST_POINTS])  # steps would be of the same images
    lines = [list(cell.values(f"pose_{what}").values()) for what in ("slope", "intercept")]
    slope, intercept = (_round(summary(each).mean) if each else None for each in lines)  # mean over seeds
    return {"unit": UNITS[kind], "points": [points[i] for i in some], "slope": slope, "intercept": intercept}


def _pairs(row: Row, kind: str) -> list[list[float]]:
    """Applied and predicted, x and y of a shift one after the other."""
    found = row.get(kind)
    if not isinstance(found, dict):
        return []
    applied, made = (_array(found.get(what)) for what in ("applied", "predicted"))
    if applied.shape != made.shape:
        return []
    return [[a, b] for a, b in zip(applied.ravel().tolist(), made.ravel().tolist(), strict=True) if is_number(a + b)]


def costs(cell: Cell) -> Chart:
    """What a seed costs; times are of one seed's share of its block."""
    fused = cell.values("fused")
    shares = [seconds / (fused.get(seed) or 1) for seed, seconds in cell.values("wall_s").items()]
    found = {key: list(cell.values(key).values()) for key in ("params", "images_per_s")} | {"seconds": shares}
    return {key: _round(summary(values).median) if values else None for key, values in found.items()}


def values(cell: Cell, metric: Metric) -> Chart:
    """Each seed's figure, with mean and interval; accuracies as errors."""
    found = cell.values(metric.key)
    if metric.is_accuracy:
        found = {seed: 1 - value for seed, value in found.items()}
    one = summary(list(found.values())) if found else None
    ends = [_round(value) for value in (one.mean, one.low, one.high)] if one else [None] * 3
    return {"seeds": {str(seed): _round(value) for seed, value in found.items()}, "mean": ends}


def of(cells: Sequence[Cell], metrics: Sequence[Metric]) -> list[Chart]:
    """All charts of one data set, an entry for each architecture."""
    return [
        {
            "label": cell.label,
            "values": {metric.key: values(cell, metric) for metric in metrics},
            "curve": curve(cell),
            "confusion": confusion(cell),
            "pose": pose(cell),
            "costs": costs(cell),
        }
        for cell in cells
    ]
