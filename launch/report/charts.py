"""What the charts of a report show, as plain numbers: the page and the figures beside it draw the same."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.report.data import Cell
from launch.report.stats import summary
from launch.report.tables import UNITS, Metric
from stn.rundir import Row

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
        points = {float(row["epoch"]): row.get(key) for row in rows if isinstance(row.get("epoch"), int | float)}
        of[seed] = {x: 1 - y for x, y in points.items() if isinstance(y, int | float) and math.isfinite(y)}
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
    """Images by class and answer: mean, least and most over seeds."""
    given = [row["confusion"] for row in cell.rows.values() if isinstance(row.get("confusion"), list)]
    shapes = {(len(matrix), *(len(line) for line in matrix)) for matrix in given}
    if len(shapes) != 1:
        return None
    counts = np.asarray(given, dtype=float)
    mean = [[_round(value) for value in line] for line in counts.mean(0)]
    least, most = counts.min(0).astype(int).tolist(), counts.max(0).astype(int).tolist()
    return {"n": len(given), "mean": mean, "least": least, "most": most}


def _line(cell: Cell) -> list[list[float]]:
    """Slopes and intercepts of the seeds."""
    return [list(cell.values(f"pose_{what}").values()) for what in ("slope", "intercept")]


def pose(cell: Cell) -> Chart | None:
    """Predicted against applied pose of the first kind that the data set has, over all seeds."""
    last = [rows[-1] for rows in cell.metrics["pose"].values()]
    kind = next((kind for kind in UNITS for row in last if kind in row), None)
    if kind is None:
        return None
    found = [_pairs(row, kind) for row in last]
    every = max(1, -(-sum(map(len, found)) // MOST_POINTS))
    points = [
        pair for k, pairs in enumerate(found) for pair in pairs[k % every :: every]
    ]  # not the same images of each
    slope, intercept = (summary(values).mean if values else None for values in _line(cell))
    return {"unit": UNITS[kind], "points": points, "slope": _round(slope), "intercept": _round(intercept)}


def _pairs(row: Row, kind: str) -> list[list[float]]:
    """Applied and predicted, x and y of a shift one after the other."""
    columns = (np.asarray(row.get(kind, {}).get(what, []), dtype=float).ravel() for what in ("applied", "predicted"))
    return [[a, b] for a, b in zip(*columns, strict=False) if math.isfinite(a + b)]


def costs(cell: Cell) -> Chart:
    """What a seed costs; times are of one seed's share of its block."""
    shares = [row["wall_s"] / (row.get("fused") or 1) for row in cell.rows.values() if _is_number(row.get("wall_s"))]
    found = {key: list(cell.values(key).values()) for key in ("params", "images_per_s")} | {"seconds": shares}
    return {key: _round(summary(values).median) if values else None for key, values in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


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
