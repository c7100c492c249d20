"""Error against the pose that was applied to the test images, in bins with as many images each."""

import re
from typing import Any

import numpy as np

from launch.report.analysis.charts import over_seeds
from launch.report.analysis.images.answers import AnsweredSet, CellAnswers
from launch.report.analysis.images.classes import shares

Line = dict[str, Any]
MOST_BINS, FEWEST_IMAGES = 12, 25


def applied(test: AnsweredSet) -> dict[str, np.ndarray]:
    """Return what was done to each image, [N], by a name with its unit."""
    pose = test.pose
    names = {"degrees": "rotation (degrees)", "log2_area": "scale (log2 of the area)"}
    found = {name: pose[key] for key, name in names.items() if key in pose}
    if {"x", "y"} <= pose.keys():
        found["shift (pixels)"] = np.hypot(pose["x"], pose["y"])
    if points := [column for name, column in pose.items() if re.fullmatch(r"[xy]\d+", name)]:
        found["points moved by (pixels, RMS)"] = np.sqrt(2 * np.mean(np.square(points), axis=0))
    return {name: values_N for name, values_N in found.items() if np.isfinite(values_N).all()}


def bins_of(values_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each image, and the mean value in each bin; none of them is empty. A few values are bins."""
    distinct, of_value_N = np.unique(values_N, return_inverse=True)
    if len(distinct) <= MOST_BINS:
        return of_value_N, distinct
    bins = min(MOST_BINS, len(values_N) // FEWEST_IMAGES)
    edges = np.quantile(values_N, np.linspace(0, 1, max(1, bins) + 1)[1:-1])
    _, bin_N = np.unique(np.searchsorted(edges, values_N, side="right"), return_inverse=True)
    return bin_N, np.bincount(bin_N, values_N) / np.bincount(bin_N)


def error_lines(answers: CellAnswers, binned: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Line]:
    """Return error against each applied pose as the charts draw it: every seed, and what they are together."""
    lines = {}
    for name, (bin_N, x_B) in binned.items():
        errors_SB = 1 - shares(answers.right_SN, bin_N, len(x_B))
        line: Line = {"x": [float(f"{x:.5g}") for x in x_B]}
        rounded = [[round(error, 5) for error in errors] for errors in errors_SB.tolist()]
        line["seeds"] = dict(zip(map(str, answers.seeds), rounded, strict=True))
        lines[name] = line | over_seeds(errors_SB.T.tolist())
    return lines


def binned_poses(test: AnsweredSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the bins of every applied pose; nothing where there are too few images, or only one pose."""
    binned = {name: bins_of(values_N) for name, values_N in applied(test).items()}
    return {name: found for name, found in binned.items() if len(found[1]) > 1}
