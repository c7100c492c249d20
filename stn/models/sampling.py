"""Bilinear sampling whose gradients are the same bits every time, on CUDA as well.

Owns both gradients: many points pull at one pixel of the image, and what atomics make of floats
depends on who comes first; of integers it does not. B batch, C channel, H W map, N points of one
image's grid, P pixels of one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PADDING = {"zeros": 0, "border": 1, "reflection": 2}
"""ATen's numbers for them."""


def deterministic_sample(x_BCHW: Tensor, grid_BHW2: Tensor, padding: str, align_corners: bool) -> Tensor:
    """F.grid_sample for deterministic mode; both tensors in float32 or both in float64."""
    return _Sample.apply(x_BCHW, grid_BHW2, _PADDING[padding], align_corners)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
        ctx.save_for_backward(x_BCHW, grid_BHW2)
        ctx.how = padding, align_corners
        return torch.ops.aten.grid_sampler_2d(x_BCHW, grid_BHW2, 0, padding, align_corners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = grad_BCHW, *ctx.saved_tensors, *ctx.how
        image = _image_gradient(*given) if ctx.needs_input_grad[0] else None
        grid = _grid_gradient(*given) if ctx.needs_input_grad[1] else None
        return image, grid, None, None


@contextmanager
def _any_order() -> Iterator[None]:
    """Deterministic mode refuses operations by name; those in here do not depend on order."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warn_only)


# Operators, so that torch.compile keeps them whole: it would trace what is inside without the switch.


@torch.library.custom_op("stn::grid_gradient", mutates_args=())
def _grid_gradient(grad_BCHW: Tensor, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
    """ATen's own, in which one thread writes each element."""
    how = 0, padding, align_corners, [False, True]
    with _any_order():
        return torch.ops.aten.grid_sampler_2d_backward(grad_BCHW, x_BCHW, grid_BHW2, *how)[1]


@torch.library.custom_op("stn::image_gradient", mutates_args=())
def _image_gradient(grad_BCHW: Tensor, x_BCHW: Tensor, grid_BHW2: Tensor, padding: int, align_corners: bool) -> Tensor:
    """A sum of integers, counted in a unit of the image's own: a power of two, so exact."""
    B, C, H, W = x_BCHW.shape
    grad_BCN = grad_BCHW.contiguous().flatten(2)
    low_B, high_B = grad_BCN.flatten(1).aminmax(dim=1)
    largest_B = torch.maximum(-low_B, high_B).double()
    # largest < 2^(exponent - 1022), exponent as a double stores it. A point's four pixels are four
    # different ones, so no pixel's sum exceeds N times the largest: at most 2^62 with this scale.
    bits = 62 - (grad_BCN.shape[2] - 1).bit_length()
    exponent_B = (largest_B.view(torch.int64) >> 52).clamp(min=bits)  # 0 and even -0.0 get a finite scale
    scale_B = ((bits + 2045 - exponent_B) << 52).view(torch.float64)  # spelt in bits: pow may round
    x_BN, y_BN = _places(grid_BHW2, H, W, padding, align_corners)
    sum_BCP = torch.zeros(B, C, H * W, dtype=torch.int64, device=x_BCHW.device)
    _add(sum_BCP, grad_BCN, x_BN, y_BN, scale_B, H, W)
    unit_B = 1 / scale_B + 0 * largest_B  # NaN for an image whose gradient is not finite
    image_BCP = x_BCHW.new_empty(sum_BCP.shape)
    return torch.mul(sum_BCP, unit_B[:, None, None], out=image_BCP).view(B, C, H, W)


_grid_gradient.register_fake(lambda grad, x, grid, *how: grid.new_empty(grid.shape))
_image_gradient.register_fake(lambda grad, x, grid, *how: x.new_empty(x.shape))


def _places(grid_BHW2: Tensor, H: int, W: int, padding: int, align_corners: bool) -> list[Tensor]:
    """Where the points are, in columns and in rows, once padding has moved them."""
    places = []
    for n, p in zip((W, H), grid_BHW2.flatten(1, 2).unbind(-1), strict=True):
        p = (p + 1) / 2 * (n - 1) if align_corners else ((p + 1) * n - 1) / 2
        if padding == _PADDING["reflection"]:
            low, span = (0, max(n - 1, 1)) if align_corners else (-0.5, n)
            p = low + span - ((p - low).abs() % (2 * span) - span).abs()
        outside = int(padding == _PADDING["zeros"])  # one pixel outside, nothing is left to see
        places.append(p.clamp(-outside, n - 1 + outside).contiguous())
    return places


def _add(sum_BCP: Tensor, grad_BCN: Tensor, x_BN: Tensor, y_BN: Tensor, scale_B: Tensor, H: int, W: int) -> None:
    """Each point's gradient to the four pixels around it."""
    for corner in range(4):
        ix_BN, iy_BN = x_BN.floor() + corner % 2, y_BN.floor() + corner // 2
        inside_BN = (ix_BN >= 0) & (ix_BN < W) & (iy_BN >= 0) & (iy_BN < H)
        weight_BN = (1 - (x_BN - ix_BN).abs()) * (1 - (y_BN - iy_BN).abs()) * inside_BN
        value_BCN = ((grad_BCN * weight_BN.unsqueeze(1)).double() * scale_B[:, None, None]).long()
        at_BN = iy_BN.long().clamp(0, H - 1) * W + ix_BN.long().clamp(0, W - 1)
        with _any_order():
            sum_BCP.scatter_add_(2, at_BN.unsqueeze(1).expand_as(value_BCN), value_BCN)
