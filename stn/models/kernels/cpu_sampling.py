"""Samples on a CPU: of feature maps of several seeds, without a copy to another order of memory, and of images.

S seed, B batch, M images, C channel, H x W a map, h x w a grid.
"""

import math
from typing import Any

import torch
from torch import Tensor

from stn.models.kernels.compiled import VECTOR, call, fits
from stn.models.kernels.operators import operator


def has_kernel(x_SBCHW: Tensor, grid_SBhw2: Tensor) -> bool:
    """Whether these maps lie as the kernel takes them: those of all seeds side by side in each pixel."""
    if x_SBCHW.dim() != 5 or grid_SBhw2.dim() != 5 or x_SBCHW.shape[2] % VECTOR:
        return False
    side_by_side = x_SBCHW.permute(1, 3, 4, 0, 2).is_contiguous()
    points = grid_SBhw2.shape[:2] == x_SBCHW.shape[:2] and grid_SBhw2.shape[4] == 2
    return side_by_side and points and fits(x_SBCHW, grid_SBhw2)


def _maps(like: Tensor, H: int, W: int) -> Tensor:
    S, B, C = like.shape[:3]
    return torch.empty(B, H, W, S, C, dtype=like.dtype, device=like.device).permute(3, 0, 4, 1, 2)


def _how(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> tuple[int | float, ...]:
    S, B, C, H, W = x_SBCHW.shape
    scales = ((W - 1) / 2, (H - 1) / 2, 0.0) if align_corners else (W / 2, H / 2, -0.5)
    return S, B, H, W, C, math.prod(grid_SBhw2.shape[2:4]), int(border), *scales


@operator(
    "sample_last(Tensor x, Tensor grid, bool border, bool align_corners) -> Tensor",
    lambda x, grid, *how: _maps(x, *grid.shape[2:4]),
)
def _sample(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> Tensor:
    out = _maps(x_SBCHW, *grid_SBhw2.shape[2:4])
    call("sample", x_SBCHW, grid_SBhw2, out, *_how(x_SBCHW, grid_SBhw2, border, align_corners))
    return out


@operator(
    "sample_last_gradients(Tensor grad, Tensor x, Tensor grid, bool border, bool align_corners) -> (Tensor, Tensor)",
    lambda grad, x, grid, *how: (_maps(x, *x.shape[3:]), torch.empty_like(grid)),
)
def _gradients(
    grad_SBChw: Tensor, x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool
) -> tuple[Tensor, Tensor]:
    grad_BhwSC = grad_SBChw.permute(1, 3, 4, 0, 2).contiguous()
    to_maps, to_grid = _maps(x_SBCHW, *x_SBCHW.shape[3:]).zero_(), torch.empty_like(grid_SBhw2)
    how = _how(x_SBCHW, grid_SBhw2, border, align_corners)
    call("sample_gradient", grad_BhwSC, x_SBCHW, grid_SBhw2, to_maps, to_grid, *how)
    return to_maps, to_grid


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_SBCHW: Tensor, grid_SBhw2: Tensor, *how: bool) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_SBCHW, grid_SBhw2)
        ctx.how = how
        return _sample(x_SBCHW, grid_SBhw2, *how)

    @staticmethod
    def backward(ctx: Any, grad_SBChw: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_SBCHW, grid_SBhw2 = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return *_gradients(grad_SBChw, x_SBCHW, grid_SBhw2, *ctx.how), None, None
        rows = (tensor.flatten(0, 1) for tensor in (grad_SBChw, x_SBCHW, grid_SBhw2))  # PyTorch's has a derivative
        border, align_corners = ctx.how
        to_maps, to_grid = torch.ops.aten.grid_sampler_2d_backward(*rows, 0, int(border), align_corners, [True, True])
        return to_maps.view(x_SBCHW.shape), to_grid.view(grid_SBhw2.shape), None, None


def sample(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> Tensor:
    """Return bilinear samples, in memory as the maps are; outside are zeros or the border's pixels."""
    return _Sample.apply(x_SBCHW, grid_SBhw2.contiguous(), border, align_corners)


@operator(
    "resample(Tensor dark, Tensor x, Tensor y) -> Tensor",
    lambda dark, x, y: dark.new_empty(*dark.shape[:2], *x.shape[1:]),
)
def _resample(dark_MChw: Tensor, x_MHW: Tensor, y_MHW: Tensor) -> Tensor:
    (M, C, h, w), P = dark_MChw.shape, math.prod(x_MHW.shape[1:])
    out = dark_MChw.new_empty(M, C, *x_MHW.shape[1:])
    call("resample", dark_MChw, x_MHW, y_MHW, out, M, C, h - 3, w - 3, P)
    return out


def resample(dark_MChw: Tensor, x: Tensor, y: Tensor) -> Tensor | None:
    """Sample images with black pixels around, one before and two after, as stn.data.geometry does; None: no kernel."""
    if not fits(dark_MChw, x, y):
        return None
    points = torch.broadcast_tensors(x, y)  # torch.broadcast_shapes would import sympy, half a second
    return _resample(dark_MChw.contiguous(), *(p.expand(len(dark_MChw), *p.shape[1:]).contiguous() for p in points))
