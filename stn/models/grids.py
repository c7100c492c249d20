"""Grids, the algebra of transforms, and bilinear sampling.

B batch, C channel, H W map, K control points, theta_B23 or theta_B33 the matrix that moves sampling points (so the
image moves by its inverse), x and y coordinates in [-1, 1] that broadcast to [B, H, W].
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

_FAR = 1e6
"""Largest coordinate of a sampling point, far outside of every image."""
_HORIZON = 1e-3
"""Smallest distance to the horizon of a projective transform, where points are infinitely far."""


def cached_constant(make: Callable[P, T]) -> Callable[P, T]:
    """Cache a constant per size and device, except under torch.export, whose tensors hold no values."""
    known: dict = {}

    @wraps(make)
    def get(*key: P.args, **_: P.kwargs) -> T:
        constant = known[key] if key in known else make(*key, **_)
        return constant if torch.compiler.is_compiling() else known.setdefault(key, constant)

    get.known = known  # type: ignore[attr-defined]
    return get


@cached_constant
def _axis(n: int, align_corners: bool, finer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the pixel centres of one side in [-1, 1]; ``finer`` cuts each pixel in so many, around the same centre."""
    pitch = 2 / (max(n - 1, 1) if align_corners else n)
    edge = (n - 1 / finer) / 2 * pitch
    return torch.linspace(-edge, edge, n * finer, device=device, dtype=dtype)


def axes(size: tuple[int, int], align_corners: bool, like: Tensor, finer: int = 1) -> tuple[Tensor, Tensor]:
    """Return the regular grid, x [W] and y [H, 1]; not in half precision, which would be off by whole pixels."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    y_H, x_W = (_axis(n, align_corners, finer, like.device, dtype) for n in size)
    return x_W, y_H.unsqueeze(-1)


def grid_from(x: Tensor, y: Tensor) -> Tensor:
    """Return sampling points [B, H, W, 2], always finite.

    torch's grid_sample reads outside of memory (a segmentation fault, seen on CPU in 2.15) where a coordinate is NaN
    and padding is border or reflection.
    """
    grid = F.hardtanh(torch.stack([x, y], dim=-1), -_FAR, _FAR)  # no gradient outside; NaN's does not matter
    grid.detach().nan_to_num_(0.0)
    return grid


def move(theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return points under an affine matrix; elementwise, so without TF32."""
    a_B2, b_B2, c_B2 = theta[:, :2, :, None, None].to(x.dtype).unbind(2)
    moved_x, moved_y = (a_B2 * x + b_B2 * y + c_B2).unbind(1)
    return moved_x, moved_y


def project(theta_B33: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return points under a projective matrix."""
    g, h, i = theta_B33[:, 2, :, None, None].to(x.dtype).unbind(1)
    depth = g * x + h * y + i
    depth = torch.where(depth.abs() < _HORIZON, torch.where(depth < 0, -_HORIZON, _HORIZON), depth)
    u, v = move(theta_B33, x, y)
    return u / depth, v / depth


def affine_grid(theta: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Return the sampling points [B, H, W, 2] of an affine matrix."""
    return grid_from(*move(theta, *axes(size, align_corners, theta)))


def sample(x_BCHW: Tensor, grid_BHW2: Tensor, padding: str, align_corners: bool) -> Tensor:
    """Sample bilinearly, in the grid's precision."""
    x_BCHW = x_BCHW.to(grid_BHW2.dtype)
    return F.grid_sample(x_BCHW, grid_BHW2, mode="bilinear", padding_mode=padding, align_corners=align_corners)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return the product first @ second of 3x3 matrices; elementwise, so without TF32."""
    return (first.unsqueeze(-1) * second.unsqueeze(-3)).sum(-2)


@cached_constant
def control_points(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a regular grid of side x side points over [-1, 1], (x, y) [K, 2], row by row."""
    at = torch.linspace(-1, 1, side, device=device, dtype=dtype)
    return torch.stack([at.repeat(side), at.repeat_interleave(side)], dim=1)


def _spline_basis(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Return the basis of a thin-plate spline at points: r^2 log r^2 from each control point, then 1, x, y."""
    at_K2 = control_points(side, x.device, x.dtype)
    squared = (x.unsqueeze(-1) - at_K2[:, 0]) ** 2 + (y.unsqueeze(-1) - at_K2[:, 1]) ** 2
    radial = squared * squared.clamp(min=1e-30).log()
    one = torch.ones_like(radial[..., 0])
    # A product instead of expand, into which tracing would write the size of the batch.
    return torch.cat([radial, torch.stack([one, x * one, y * one], -1)], dim=-1)


@cached_constant
def _stiffness(side: int, device: torch.device) -> Tensor:
    """Return the matrix from the control points' targets to the spline's coefficients, [K + 3, K], in float64."""
    at_K2 = control_points(side, torch.device("cpu"), torch.float64)
    basis = _spline_basis(at_K2[:, 0], at_K2[:, 1], side)
    K = len(at_K2)
    system = torch.cat([basis, torch.cat([basis[:, K:], basis.new_zeros(3, 3)]).mT])
    return torch.linalg.inv(system)[:, :K].to(device)


@cached_constant
def _plate(size: tuple[int, int], side: int, align_corners: bool, finer: int, device: torch.device) -> Tensor:
    """Return the weight of each control point's target at each point of the regular grid, [H * W, K]."""
    x, y = axes(size, align_corners, torch.empty(0, device=device, dtype=torch.float64), finer)
    return (_spline_basis(x.expand(len(y), -1), y.expand(-1, len(x)), side) @ _stiffness(side, device)).flatten(0, 1)


def plate_grid(to_BK2: Tensor, size: tuple[int, int], align_corners: bool, finer: int = 1) -> tuple[Tensor, Tensor]:
    """Return the regular grid under the spline that takes the control points to ``to_BK2``."""
    side = round(to_BK2.shape[1] ** 0.5)
    plate = _plate(size, side, align_corners, finer, to_BK2.device)
    # A product with few terms, in float64: TF32 would be off by whole pixels.
    moved_B2N = F.linear(to_BK2.double().transpose(1, 2), plate).to(axes(size, align_corners, to_BK2)[0].dtype)
    x, y = moved_B2N.view(-1, 2, size[0] * finer, size[1] * finer).unbind(1)
    return x, y


def bend(to_BK2: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return any points under the spline that takes the control points to ``to_BK2``."""
    side = round(to_BK2.shape[1] ** 0.5)
    coefficients = F.linear(to_BK2.double().transpose(1, 2), _stiffness(side, to_BK2.device)).to(x.dtype)
    moved = (_spline_basis(x, y, side).unsqueeze(-4) * coefficients[:, :, None, None, :]).sum(-1)
    return moved[:, 0], moved[:, 1]
