"""Bilinear sampling whose gradients are the same bits every time, on CUDA as well.

Many points add to the gradient of one pixel. Atomic additions of floats depend on their order, those of integers do
not. B batch, C channel, H W map, N points of one image's grid, P pixels of one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stn.models.kernels.operators import on_any_device

_PADDING = {"zeros": 0, "border": 1, "reflection": 2}
"""ATen's numbers for the paddings."""


def deterministic_sample(x_BCHW: Tensor, grid_BHW2: Tensor, padding: str, align_corners: bool) -> Tensor:
    """Do what F.grid_sample does, in deterministic mode; both tensors in float32 or both in float64."""
    return _Sample.apply(x_BCHW, grid_BHW2, _PADDING[padding], align_corners)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
        ctx.save_for_backward(x_BCHW, grid_BHW2)
        ctx.options = padding, align_corners
        return torch.ops.aten.grid_sampler_2d(x_BCHW, grid_BHW2, 0, padding, align_corners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = grad_BCHW, *ctx.saved_tensors, *ctx.options
        image = _image_gradient(*given) if ctx.needs_input_grad[0] else None
        grid = _grid_gradient(*given) if ctx.needs_input_grad[1] else None
        return image, grid, None, None


@contextmanager
def _any_order() -> Iterator[None]:
    """Lift deterministic mode, which refuses operations by name, for those whose result does not depend on order."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


# Operators, which torch.compile does not trace into: it would trace the inside without _any_order.


@on_any_device("grid_gradient", lambda grad, x, grid, *how: grid.new_empty(grid.shape))
def _grid_gradient(grad_BCHW: Tensor, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
    """Return ATen's gradient, in which one thread writes each element."""
    options = 0, padding, align_corners, [False, True]
    with _any_order():
        return torch.ops.aten.grid_sampler_2d_backward(grad_BCHW, x_BCHW, grid_BHW2, *options)[1]


@on_any_device("image_gradient", lambda grad, x, grid, *how: x.new_empty(x.shape))
def _image_gradient(grad_BCHW: Tensor, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
    """Return a sum of integers, in a unit of each image's own: a power of two, so exact."""
    B, C, H, W = x_BCHW.shape
    grad_BCN = grad_BCHW.contiguous().flatten(2)
    low_B, high_B = grad_BCN.flatten(1).aminmax(dim=1)
    largest_B = torch.maximum(-low_B, high_B).double()
    scale_B = _scale(largest_B, grad_BCN.shape[2])
    x_BN, y_BN = _pixel_coordinates(grid_BHW2, H, W, padding, align_corners)
    sum_BCP = _pixel_sums(grad_BCN, x_BN, y_BN, scale_B, H, W)
    unit_B = 1 / scale_B + 0 * largest_B  # NaN for an image whose gradient is not finite
    image_BCP = x_BCHW.new_empty(sum_BCP.shape)
    return torch.mul(sum_BCP, unit_B[:, None, None], out=image_BCP).view(B, C, H, W)


def _scale(largest_B: Tensor, N: int) -> Tensor:
    """Return a power of two for each image: N gradients of at most this size, times it, have a sum that fits int64.

    A point adds to four different pixels, so no pixel's sum exceeds N times the largest gradient, which is below
    2^(exponent - 1022) with the exponent as a double stores it: at most 2^62 with this scale.
    """
    bits = 62 - (N - 1).bit_length()
    exponent_B = (largest_B.view(torch.int64) >> 52).clamp(min=bits)  # 0 and even -0.0 get a finite scale
    return ((bits + 2045 - exponent_B) << 52).view(torch.float64)  # spelt in bits: pow may round


def _pixel_coordinates(grid_BHW2: Tensor, H: int, W: int, padding: int, align_corners: bool) -> list[Tensor]:
    """Return the points' columns and rows [B, N], in pixels, after padding has moved them."""
    coordinates = []
    for n, p_BN in zip((W, H), grid_BHW2.flatten(1, 2).unbind(-1), strict=True):
        p_BN = (p_BN + 1) / 2 * (n - 1) if align_corners else ((p_BN + 1) * n - 1) / 2
        if padding == _PADDING["reflection"]:
            low, span = (0, max(n - 1, 1)) if align_corners else (-0.5, n)
            p_BN = low + span - ((p_BN - low).abs() % (2 * span) - span).abs()
        outside = int(padding == _PADDING["zeros"])  # one pixel outside, no pixel of the image contributes
        coordinates.append(p_BN.clamp(-outside, n - 1 + outside).contiguous())
    return coordinates


def _pixel_sums(grad_BCN: Tensor, x_BN: Tensor, y_BN: Tensor, scale_B: Tensor, H: int, W: int) -> Tensor:
    """Add each point's gradient to the four pixels around it."""
    B, C, _ = grad_BCN.shape
    sum_BCP = torch.zeros(B, C, H * W, dtype=torch.int64, device=grad_BCN.device)
    for corner in range(4):
        column_BN, row_BN = x_BN.floor() + corner % 2, y_BN.floor() + corner // 2
        inside_BN = (column_BN >= 0) & (column_BN < W) & (row_BN >= 0) & (row_BN < H)
        weight_BN = (1 - (x_BN - column_BN).abs()) * (1 - (y_BN - row_BN).abs()) * inside_BN
        value_BCN = ((grad_BCN * weight_BN.unsqueeze(1)).double() * scale_B[:, None, None]).long()
        pixel_BN = row_BN.long().clamp(0, H - 1) * W + column_BN.long().clamp(0, W - 1)
        with _any_order():
            sum_BCP.scatter_add_(2, pixel_BN.unsqueeze(1).expand_as(value_BCN), value_BCN)
    return sum_BCP
