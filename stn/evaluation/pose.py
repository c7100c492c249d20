"""Measure what a transformer does to the test images, at the end of a run.

The definitions are those of Finnveden et al. (arXiv 2004.11678), Table I; the agreement of feature maps is ours.
A perturbation applies the pose theta, the transformer adds the compensation theta'; the final pose is their sum.
B batch, N test images, C channel, H W map, A_B33 moves sampling points, so that the image moves by its inverse.
"""

import math
from collections.abc import Iterator
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor, nn

from stn.data.stream import Stream
from stn.models.grids import axes
from stn.models.transformer import SpatialTransformer, Warp
from stn.models.wirings import Transformed

_AGREEMENT_IMAGES = 10_000
_KINDS = {"degrees": ("degrees",), "log2_area": ("log2_area",), "shift": ("x", "y")}
"""Kinds of pose with their columns; the first that a data set has needs no name in a row."""
POINTS = 200
"""Test images whose applied and predicted pose are recorded at the end, from one end of the test set to the other."""
Points = dict[str, dict[str, list]]
"""Kind of pose -> applied and predicted, a number or [x, y] for each image."""


@lru_cache(maxsize=16)
def _pseudo_inverse(st_size: tuple[int, int], align_corners: bool, finer: int, device: torch.device) -> Tensor:
    """Return the least-squares solver for a grid, [3, H * W] in float64."""
    x, y = axes(st_size, align_corners, torch.empty(0, device=device, dtype=torch.float64), finer)
    x, y = x.expand(len(y), -1), y.expand(-1, len(x))
    return torch.linalg.pinv(torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1))


def linear_part(st: SpatialTransformer, grid_BHW2: Tensor) -> Tensor:
    """Return the affine transform closest to a grid, as 3x3 matrices."""
    inverse_3N = _pseudo_inverse(st.size, st.options.align_corners, st.finer, grid_BHW2.device)
    A_B23 = (inverse_3N @ grid_BHW2.flatten(1, 2).double()).mT
    last = A_B23.new_tensor([0.0, 0.0, 1.0]).expand(len(A_B23), 1, 3)
    return torch.cat([A_B23, last], 1)


def total_matrix(model: Transformed, shape: tuple[int, ...], warps: list[Warp]) -> Tensor:
    """Return the product of all transformers, [B, 3, 3] in float64, in the units of the first one's map."""
    matrices = []
    for at, st, warp in zip(model.at, model.st, warps, strict=True):
        A_B33 = linear_part(st, warp.grid_BHW2)  # type: ignore[arg-type]
        A_B33[:, :2, 2] *= pixels_per_unit(model, shape, at) / pixels_per_unit(model, shape)
        matrices.append(A_B33)
    return reduce(torch.matmul, matrices)


def pixels_per_unit(model: Transformed, shape: tuple[int, ...], at: int | None = None) -> float:
    """Return the image pixels per unit of translation of the transformer before stage ``at`` (default: the first).

    That is half a side of the image, or of the feature map times its stride where that is warped.
    """
    at = model.at[0] if at is None else at
    sides: dict[int, Any] = dict(zip(model.at, (st.side for st in model.st), strict=True))
    stride = 1
    for module in model.stages[:at].modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            stride *= module.stride if isinstance(module.stride, int) else module.stride[0]
    return stride * (sides.get(at, shape[-1]) - (1 if model.options.align_corners else 0)) / 2


def compensation(kind: str, A_B33: Tensor, unit: float) -> Tensor:
    """Return theta' of one kind of pose, [B], or [B, 2] for x and y."""
    if kind == "degrees":  # of the least-squares similarity
        return torch.rad2deg(torch.atan2(A_B33[:, 1, 0] - A_B33[:, 0, 1], A_B33[:, 0, 0] + A_B33[:, 1, 1]))
    if kind == "log2_area":  # sampling points that spread make the image smaller
        return -torch.linalg.det(A_B33[:, :2, :2]).abs().clamp(min=1e-6).log2()
    return -unit * A_B33[:, :2, 2]


def applied_and_compensated(
    model: Transformed, stream: Stream, A_N33: Tensor, pose_NP: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield theta and theta' of each kind of pose that the data set has."""
    unit, columns = pixels_per_unit(model, stream.dataset.shape), stream.dataset.pose
    for kind, names in _KINDS.items():
        if set(names) <= set(columns):
            theta = pose_NP[:, [columns.index(name) for name in names]].squeeze(1)
            yield kind, theta, compensation(kind, A_N33, unit)


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


class _Agreement:
    """The correlation, over images, of two kinds of feature maps without their mean maps."""

    def __init__(self) -> None:
        self.n, self.sums = 0, [torch.zeros(())] * 5

    def add(self, f: Tensor, g: Tensor) -> None:
        f, g = f.double(), g.double()
        sums = f.sum(0), g.sum(0), (f * g).sum(), (f * f).sum(), (g * g).sum()
        self.sums = [total + more for total, more in zip(self.sums, sums, strict=True)]
        self.n += len(f)

    def value(self) -> float:
        f, g, fg, ff, gg = self.sums
        covariance = fg - (f * g).sum() / self.n
        variances = (ff - f.square().sum() / self.n) * (gg - g.square().sum() / self.n)
        return float(covariance / variances.sqrt())


@torch.no_grad()
def measure_pose(model: nn.Module, stream: Stream, batch_size: int) -> tuple[dict[str, Any], Points]:
    """Return the fields of a result row, and points to plot; nothing for a network without a transformer.

    ``feature_agreement`` is the correlation of two feature maps: of a perturbed image and of the same image before the
    perturbation, each through the transformer, after the first stage (or after the warp where feature maps are warped).
    It is over the first 10,000 test images, positions and channels, less each position's mean over images.
    """
    if not isinstance(model, Transformed):
        return {}, {}
    model.eval()
    matrices, poses, labels, agreement = [], [], [], _Agreement()
    after_warp = max(1, model.at[-1])
    done = 0
    for batch in stream.test_batches(stream.test_batch_size(batch_size)):
        warps = model.warps(batch.x_BCHW)
        matrices.append(total_matrix(model, stream.dataset.shape, warps))
        poses.append(batch.pose_BP.double())
        labels.append(batch.y_B)
        compared = min(_AGREEMENT_IMAGES - done, len(batch.y_B))
        if stream.dataset.perturb is not None and compared > 0:
            index_B = torch.arange(done, done + compared, device=stream.device)
            plain = model.warps(stream.plain_images(index_B))[-1].image_BCHW
            maps = (warps[-1].image_BCHW[:compared], plain)
            agreement.add(*(model._run(x_BCHW, model.at[-1], after_warp) for x_BCHW in maps))
        done += len(batch.y_B)
    A_N33, pose_NP, label_N = (torch.cat(parts).cpu() for parts in (matrices, poses, labels))
    # An image moves by the inverse of what moves the sampling points.
    metrics: dict[str, Any] = {"pose_determinant": float((1 / torch.linalg.det(A_N33[:, :2, :2])).mean())}
    points: Points = {}
    for kind, applied, compensated in applied_and_compensated(model, stream, A_N33, pose_NP):
        suffix = f"_{kind}" if "pose_spread" in metrics else ""
        summary = pose_summary(kind, applied, compensated, label_N)
        metrics |= {f"pose_{name}{suffix}": value for name, value in summary.items()}
        points |= points_to_plot(kind, applied, compensated)
    if agreement.n:
        metrics["feature_agreement"] = agreement.value()
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}, points
