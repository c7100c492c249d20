"""Measure what a transformer does to the test images, at the end of a run.

The definitions are those of Finnveden et al. (arXiv 2004.11678), Table I; the agreement of feature maps is ours.
A perturbation applies the pose theta, the transformer adds the compensation theta'; the final pose is their sum.
B batch, N test images, C channel, H W map, A_B33 moves sampling points, so that the image moves by its inverse.
"""

import math
from collections.abc import Iterator
from functools import lru_cache, partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from stn.data.stream import Stream
from stn.evaluation.accuracy import images_at_once
from stn.evaluation.pose_statistics import Points, points_to_plot, pose_summary
from stn.models.grids import axes
from stn.models.warping import Warping, warping
from stn.models.wirings import Transformed
from stn.multiseed.model import StackedModel

_AGREEMENT_IMAGES = 10_000
_KINDS = {"degrees": ("degrees",), "log2_area": ("log2_area",), "shift": ("x", "y")}
"""Kinds of pose with their columns; the first that a data set has needs no name in a row."""


@lru_cache(maxsize=16)
def _pseudo_inverse(st_size: tuple[int, int], align_corners: bool, finer: int, device: torch.device) -> Tensor:
    """Return the least-squares solver for a grid, [3, H * W] in float64."""
    x, y = axes(st_size, align_corners, torch.empty(0, dtype=torch.float64), finer)
    x, y = x.expand(len(y), -1), y.expand(-1, len(x))
    return torch.linalg.pinv(torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1)).to(device)


def linear_part(st: Any, grid_BHW2: Tensor) -> Tensor:
    """Return the affine transform closest to a grid, as 3x3 matrices."""
    size = st.size or (grid_BHW2.shape[1], grid_BHW2.shape[2])
    inverse_3N = _pseudo_inverse(size, st.options.align_corners, st.finer, grid_BHW2.device)
    A_B23 = (inverse_3N @ grid_BHW2.flatten(1, 2).double()).mT
    last = A_B23.new_tensor([0.0, 0.0, 1.0]).expand(len(A_B23), 1, 3)
    return torch.cat([A_B23, last], 1)


def total_matrix(model: Warping, shape: tuple[int, ...], grids: list[Tensor]) -> Tensor:
    """Return the product of all transformers, [B, 3, 3] in float64, in the units of the first one's map."""
    matrices = []
    for at, st, grid_BHW2 in zip(model.at, model.st, grids, strict=True):
        A_B33 = linear_part(st, grid_BHW2)  # type: ignore[arg-type]
        A_B33[:, :2, 2] *= pixels_per_unit(model, shape, at) / pixels_per_unit(model, shape)
        matrices.append(A_B33)
    return reduce(torch.matmul, matrices)


def pixels_per_unit(model: Warping, shape: tuple[int, ...], at: int | None = None) -> float:
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
    model: Warping, stream: Stream, A_N33: Tensor, pose_NP: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield theta and theta' of each kind of pose that the data set has."""
    unit, columns = pixels_per_unit(model, stream.dataset.shape), stream.dataset.pose
    for kind, names in _KINDS.items():
        if set(names) <= set(columns):
            theta = pose_NP[:, [columns.index(name) for name in names]].squeeze(1)
            yield kind, theta, compensation(kind, A_N33, unit)


class _Agreement:
    """Each seed's correlation, over images, of two kinds of feature maps without their mean maps."""

    def __init__(self) -> None:
        self.n, self.sums = 0, [torch.zeros(())] * 5

    def add(self, f_SBCHW: Tensor, g_SBCHW: Tensor) -> None:
        f, g = f_SBCHW.double().flatten(2), g_SBCHW.double().flatten(2)
        sums = f.sum(1), g.sum(1), (f * g).sum((1, 2)), (f * f).sum((1, 2)), (g * g).sum((1, 2))
        self.sums = [total + more for total, more in zip(self.sums, sums, strict=True)]
        self.n += f.shape[1]

    def values(self) -> list[float]:
        f, g, fg, ff, gg = self.sums
        covariance = fg - (f * g).sum(1) / self.n
        variances = (ff - f.square().sum(1) / self.n) * (gg - g.square().sum(1) / self.n)
        return (covariance / variances.sqrt()).tolist()


def _grids(network: Any, x_BCHW: Tensor) -> list[Tensor]:
    return [warp.grid_BHW2 for warp in network.warps(x_BCHW)]


def _grids_and_map(network: Any, x_BCHW: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return all grids, and the map after the last warp, or after the first stage where the image is warped."""
    warps = network.warps(x_BCHW)
    if not isinstance(network, Transformed):
        return [warp.grid_BHW2 for warp in warps], warps[-1].image_BCHW
    last = network.at[-1]
    return [warp.grid_BHW2 for warp in warps], network._run(warps[-1].image_BCHW, last, max(1, last))


@torch.no_grad()
def measure_poses(model: StackedModel, stream: Stream, batch_size: int) -> list[tuple[dict[str, Any], Points]]:
    """Return, for each seed, the fields of a result row and points to plot; nothing without a transformer.

    ``feature_agreement`` is the correlation of two feature maps: of a perturbed image and of the same image before the
    perturbation, each through the transformer, after the first stage (or after the warp where feature maps are warped).
    It is over the first 10,000 test images, positions and channels, less each position's mean over images.
    """
    network = warping(model.template, stream.dataset.shape)
    if network is None:
        return [({}, {}) for _ in model.seeds]
    training = model.training
    model.eval()
    matrices, poses, labels, agreement = [], [], [], _Agreement()
    done = 0
    for batch in stream.test_batches(images_at_once(model, stream, batch_size)):
        compared = min(_AGREEMENT_IMAGES - done, len(batch.y_B)) if stream.dataset.perturb is not None else 0
        if compared > 0:
            grids, map_SBCHW = model.inspect(_grids_and_map, batch.x_BCHW)
            index_B = torch.arange(done, done + compared, device=stream.device)
            agreement.add(map_SBCHW[:, :compared], model.inspect(_grids_and_map, stream.plain_images(index_B))[1])
        else:
            grids = model.inspect(_grids, batch.x_BCHW)
        A_M33 = total_matrix(network, stream.dataset.shape, [grid_SBHW2.flatten(0, 1) for grid_SBHW2 in grids])
        matrices.append(A_M33.unflatten(0, (len(model.seeds), -1)))
        poses.append(batch.pose_BP.double())
        labels.append(batch.y_B)
        done += len(batch.y_B)
    model.train(training)
    pose_NP, label_N = torch.cat(poses).cpu(), torch.cat(labels).cpu()
    agreements = agreement.values() if agreement.n else [None] * len(model.seeds)
    summarise = partial(_summary, network, stream, pose_NP, label_N)
    return list(map(summarise, torch.cat(matrices, 1).cpu(), agreements))


def _summary(
    network: Warping, stream: Stream, pose_NP: Tensor, label_N: Tensor, A_N33: Tensor, agreement: float | None
) -> tuple[dict[str, Any], Points]:
    """Return one seed's fields and points."""
    # An image moves by the inverse of what moves the sampling points.
    metrics: dict[str, Any] = {"pose_determinant": float((1 / torch.linalg.det(A_N33[:, :2, :2])).mean())}
    points: Points = {}
    for kind, applied, compensated in applied_and_compensated(network, stream, A_N33, pose_NP):
        suffix = f"_{kind}" if "pose_spread" in metrics else ""
        summary = pose_summary(kind, applied, compensated, label_N)
        metrics |= {f"pose_{name}{suffix}": value for name, value in summary.items()}
        points |= points_to_plot(kind, applied, compensated)
    if agreement is not None:
        metrics["feature_agreement"] = agreement
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}, points
