"""Statistics of applied and compensated poses: spread, the line of predicted against applied pose, points to plot.

N test images; theta is the applied pose, theta' the compensation, and the final pose their sum.
"""

import math
from typing import Any

import torch
from torch import Tensor

POINTS = 200
"""Test images whose applied and predicted pose are recorded at the end, from one end of the test set to the other."""
Points = dict[str, dict[str, list]]
"""Kind of pose -> applied and predicted, a number or [x, y] for each image."""


def _unwrapped(degrees_N: Tensor) -> Tensor:
    """Return the angles modulo 360, each within 180 degrees of their mean direction."""
    angle = torch.deg2rad(degrees_N)
    middle = torch.rad2deg(torch.atan2(angle.sin().mean(), angle.cos().mean()))
    return middle + (degrees_N - middle + 180) % 360 - 180


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return slope and intercept of the orthogonal (Deming, error ratio 1) regression of y on x."""
    dx, dy = x - x.mean(), y - y.mean()
    sxx, syy, sxy = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    if sxy == 0:
        return 0.0 if sxx >= syy else math.inf, float(y.mean())
    slope = (syy - sxx + math.hypot(syy - sxx, 2 * sxy)) / (2 * sxy)
    return slope, float(y.mean()) - slope * float(x.mean())


def predicted_pose(kind: str, applied: Tensor, compensated: Tensor) -> Tensor:
    """Return the pose that the transformer takes an image to have; for angles the final pose is unwrapped first."""
    return applied - _unwrapped(applied + compensated) if kind == "degrees" else -compensated


def pose_summary(kind: str, applied: Tensor, compensated: Tensor, label_N: Tensor) -> dict[str, float]:
    """Return the spread of the final pose (mean over labels), and the line of predicted against applied pose."""
    predicted = predicted_pose(kind, applied, compensated)
    final, spreads = applied - predicted, []
    for label in label_N.unique():
        part = final[label_N == label] if kind != "degrees" else _unwrapped(final[label_N == label])
        spreads.append((part - part.mean(0)).square().reshape(len(part), -1).sum(1).mean().sqrt())
    slope, intercept = _line(applied.flatten(), predicted.flatten())
    return {"spread": float(torch.stack(spreads).mean()), "slope": slope, "intercept": intercept}


def _four_digits(value: Any) -> Any:
    return [_four_digits(item) for item in value] if isinstance(value, list) else float(f"{value:.4g}")


def points_to_plot(kind: str, applied: Tensor, compensated: Tensor) -> Points:
    """Return some of the points under the regression, without non-finite ones; {} if none is left."""
    index = torch.linspace(0, len(applied) - 1, min(POINTS, len(applied)), dtype=torch.float64).long()
    pair = {"applied": applied[index], "predicted": predicted_pose(kind, applied, compensated)[index]}
    finite = (pair["applied"] + pair["predicted"]).isfinite().view(len(index), -1).all(1)
    return {kind: {name: _four_digits(x[finite].tolist()) for name, x in pair.items()}} if finite.any() else {}
