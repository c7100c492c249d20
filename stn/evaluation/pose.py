"""Beyond accuracy: what a transformer does to images, measured over the test set at the end of a run.

Definitions of Finnveden et al. (arXiv 2004.11678), Table I, and a measure of our own, the agreement
of feature maps. theta is the perturbation that was applied, theta' what the transformer makes of the
image; the final pose is their sum. B batch, N test images, C channel, H W map, A_B23 what moves
sampling points, so that the image moves by its inverse.
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


@lru_cache(maxsize=16)
def _fit(st_size: tuple[int, int], align_corners: bool, finer: int, device: torch.device) -> Tensor:
    """Least squares of a grid, [3, H * W] in float64."""
    x, y = axes(st_size, align_corners, torch.empty(0, device=device, dtype=torch.float64), finer)
    x, y = x.expand(len(y), -1), y.expand(-1, len(x))
    return torch.linalg.pinv(torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1))


def linear_part(st: SpatialTransformer, grid_BHW2: Tensor) -> Tensor:
    """The affine transform next to what a transformer did, as 3x3 matrices; itself where it is one."""
    fit = _fit(st.size, st.options.align_corners, st.finer, grid_BHW2.device)
    A_B23 = (fit @ grid_BHW2.flatten(1, 2).double()).mT
    last = A_B23.new_tensor([0.0, 0.0, 1.0]).expand(len(A_B23), 1, 3)
    return torch.cat([A_B23, last], 1)


def whole(model: Transformed, shape: tuple[int, ...], warps: list[Warp]) -> Tensor:
    """All transformers of a network as one matrix, [B, 3, 3] in float64, in the units of the first one's map."""
    parts = []
    for at, st, warp in zip(model.at, model.st, warps, strict=True):
        part = linear_part(st, warp.grid_BHW2)  # type: ignore[arg-type]
        part[:, :2, 2] *= pixels(model, shape, at) / pixels(model, shape)
        parts.append(part)
    return reduce(torch.matmul, parts)


def pixels(model: Transformed, shape: tuple[int, ...], at: int | None = None) -> float:
    """Image pixels per unit of translation: half a side, of the feature map times its stride where that is warped.

    Of the first transformer, or of one before stage ``at``.
    """
    at = model.at[0] if at is None else at
    sides: dict[int, Any] = dict(zip(model.at, (st.side for st in model.st), strict=True))
    side, stride = sides.get(at, shape[-1]), 1
    for module in (m for stage in model.stages[:at] for m in stage.modules()):  # type: ignore[union-attr]
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            step = module.stride
            stride *= step if isinstance(step, int) else step[0]
    return stride * (side - (1 if model.options.align_corners else 0)) / 2


def compensation(kind: str, A_B33: Tensor, unit: float) -> Tensor:
    """theta' of one kind of pose, [B] or for x and y [B, 2]."""
    if kind == "degrees":  # of the least-squares similarity
        return torch.rad2deg(torch.atan2(A_B33[:, 1, 0] - A_B33[:, 0, 1], A_B33[:, 0, 0] + A_B33[:, 1, 1]))
    if kind == "log2_area":  # sampling points that spread make the image smaller
        return -torch.linalg.det(A_B33[:, :2, :2]).abs().clamp(min=1e-6).log2()
    return -unit * A_B33[:, :2, 2]


def _unwrapped(degrees_N: Tensor) -> Tensor:
    """Angles next to their mean direction."""
    angle = torch.deg2rad(degrees_N)
    middle = torch.rad2deg(torch.atan2(angle.sin().mean(), angle.cos().mean()))
    return middle + (degrees_N - middle + 180) % 360 - 180


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Orthogonal (Deming, error ratio 1) regression of y on x: slope and intercept."""
    dx, dy = x - x.mean(), y - y.mean()
    sxx, syy, sxy = float((dx * dx).mean()), float((dy * dy).mean()), float((dx * dy).mean())
    if sxy == 0:
        return 0.0 if sxx >= syy else math.inf, float(y.mean())
    slope = (syy - sxx + math.hypot(syy - sxx, 2 * sxy)) / (2 * sxy)
    return slope, float(y.mean()) - slope * float(x.mean())


def predicted(kind: str, applied: Tensor, made: Tensor) -> Tensor:
    """The applied pose as the transformer sees it: without the final pose, angles of which are next to their mean."""
    return applied - _unwrapped(applied + made) if kind == "degrees" else -made


def summarise(kind: str, applied: Tensor, made: Tensor, label_N: Tensor) -> dict[str, float]:
    """Spread of the final pose within a label, mean over labels; predicted against applied pose."""
    predicted_N = predicted(kind, applied, made)
    final, spreads = applied - predicted_N, []
    for label in label_N.unique():
        part = final[label_N == label] if kind != "degrees" else _unwrapped(final[label_N == label])
        spreads.append((part - part.mean(0)).square().reshape(len(part), -1).sum(1).mean().sqrt())
    slope, intercept = _line(applied.flatten(), predicted_N.flatten())
    return {"spread": float(torch.stack(spreads).mean()), "slope": slope, "intercept": intercept}


_KINDS = {"degrees": ("degrees",), "log2_area": ("log2_area",), "shift": ("x", "y")}
"""Kinds of pose with their columns; the first that a data set has needs no name in a row."""


def applied_and_made(
    model: Transformed, stream: Stream, A_N33: Tensor, pose_NP: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """theta and theta' of each kind of pose that the data set has."""
    unit, names = pixels(model, stream.dataset.shape), stream.dataset.pose
    for kind, own in _KINDS.items():
        if set(own) <= set(names):
            yield kind, pose_NP[:, [names.index(name) for name in own]].squeeze(1), compensation(kind, A_N33, unit)


SHOWN = 12
"""Test images whose transform is recorded during training."""


@torch.no_grad()
def thetas(model: nn.Module, stream: Stream) -> list[list[float]]:
    """Parameters of every transformer for the first test images, an image a line; empty without a transformer."""
    if not isinstance(model, Transformed):
        return []
    images = stream.test_images(torch.arange(min(SHOWN, stream.test_count), device=stream.device))
    found = torch.cat([warp.theta_BP for warp in model.eval().warps(images.x_BCHW)], 1)
    return [[round(number, 6) if math.isfinite(number) else 0.0 for number in line] for line in found.tolist()]


class _Agreement:
    """Correlation over images of two kinds of maps, each without its mean map."""

    def __init__(self) -> None:
        self.n, self.sums = 0, []

    def add(self, f: Tensor, g: Tensor) -> None:
        f, g = f.double(), g.double()
        new = [f.sum(0), g.sum(0), (f * g).sum(), (f * f).sum(), (g * g).sum()]
        self.sums = new if not self.sums else [a + b for a, b in zip(self.sums, new, strict=True)]
        self.n += len(f)

    def value(self) -> float:
        f, g, fg, ff, gg = self.sums
        both = fg - (f * g).sum() / self.n
        own = ((ff - f.square().sum() / self.n) * (gg - g.square().sum() / self.n)).sqrt()
        return float(both / own)


POINTS = 200
"""Test images whose applied and predicted pose are recorded at the end, from one end of the test set to the other."""
Points = dict[str, dict[str, list]]
"""Kind of pose -> applied and predicted, a number or [x, y] for each image."""


def sample(kind: str, applied: Tensor, made: Tensor) -> Points:
    """Some of the points that the regression is of; nothing where none is a number."""
    index = torch.linspace(0, len(applied) - 1, min(POINTS, len(applied)), dtype=torch.float64).long()
    pair = [x.view(len(x), -1)[index] for x in (applied, predicted(kind, applied, made))]
    real = torch.cat(pair, 1).isfinite().all(1)
    found = [[[float(f"{x:.4g}") for x in line] for line in each[real].tolist()] for each in pair]
    if kind != "shift":
        found = [[x for line in each for x in line] for each in found]
    return {kind: dict(zip(("applied", "predicted"), found, strict=True))} if real.any() else {}


@torch.no_grad()
def measure(model: nn.Module, stream: Stream, batch_size: int) -> tuple[dict[str, Any], Points]:
    """The fields of a result row, and points for the record; nothing for a network without a transformer.

    ``feature_agreement``: the maps behind the first stage (or, where maps are warped, behind the warp)
    of a perturbed image and of the same image as it was before, each through the transformer; the
    correlation of the two over the first 10,000 test images, places and channels, after each place's
    mean over images is taken off. 1: the transformer undoes the perturbation for the classifier;
    0: the maps say nothing of which image it was. Clutter (T, S) is in one of the two images only:
    1 is out of reach there, and values are comparable within a data set.
    """
    if not isinstance(model, Transformed):
        return {}, {}
    model.eval()
    level, found, agreement, batch_size = max(1, model.at[-1]), [], _Agreement(), stream.at_once(batch_size)
    for first in range(0, stream.test_count, batch_size):
        index = torch.arange(first, min(first + batch_size, stream.test_count), device=stream.device)
        batch = stream.test_images(index)
        warps = model.warps(batch.x_BCHW)
        found.append((whole(model, stream.dataset.shape, warps), batch.pose_BP.double(), batch.y_B))
        some = max(0, min(_AGREEMENT_IMAGES - first, len(index)))
        if stream.dataset.perturb is not None and some:
            pair = (warps[-1], model.warps(stream.plain_images(index[:some]))[-1])
            agreement.add(*(model._run(w.image_BCHW[:some], model.at[-1], level) for w in pair))
    A_N33, pose_NP, label_N = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    # An image moves by the inverse of what moves the sampling points.
    row: dict[str, Any] = {"pose_determinant": float((1 / torch.linalg.det(A_N33[:, :2, :2])).mean())}
    points: Points = {}
    for kind, applied, made in applied_and_made(model, stream, A_N33, pose_NP):
        tail = f"_{kind}" if "pose_spread" in row else ""
        summary = summarise(kind, applied, made, label_N)
        row |= {f"pose_{key}{tail}": value for key, value in summary.items()}
        points |= sample(kind, applied, made)
    if agreement.n:
        row["feature_agreement"] = agreement.value()
    return {key: value if math.isfinite(value) else None for key, value in row.items()}, points
