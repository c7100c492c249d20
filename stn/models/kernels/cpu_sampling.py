"""Samples on a CPU: of feature maps of several seeds, without a copy to another order of memory, and of images.

S seed, B batch, M images, C channel, H x W a map, h x w a grid.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stn.models.kernels.compiled import VECTOR, call, usable


def has_kernel(x_SBCHW: Tensor, grid_SBhw2: Tensor) -> bool:
    """Whether these maps lie as the kernel takes them: those of all seeds side by side in each pixel."""
    if (
        x_SBCHW.dim() != 5
        or grid_SBhw2.dim() != 5
        or grid_SBhw2.shape != (*x_SBCHW.shape[:2], *grid_SBhw2.shape[2:4], 2)
    ):
        return False
    fits = x_SBCHW.shape[2] % VECTOR == 0 and x_SBCHW.numel() > 0 and grid_SBhw2.numel() > 0
    floats = x_SBCHW.dtype == grid_SBhw2.dtype == torch.float32
    return fits and floats and x_SBCHW.permute(1, 3, 4, 0, 2).is_contiguous() and usable()


def _how(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> tuple[int | float, ...]:
    S, B, C, H, W = x_SBCHW.shape
    scales = ((W - 1) / 2, (H - 1) / 2, 0.0) if align_corners else (W / 2, H / 2, -0.5)
    return S, B, H, W, C, math.prod(grid_SBhw2.shape[2:4]), int(border), *scales


def _empty(S: int, B: int, C: int, H: int, W: int) -> Tensor:
    return torch.empty(B, H, W, S, C).permute(3, 0, 4, 1, 2)


@torch.library.custom_op("stn::sample_last", mutates_args=())
def _sample(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> Tensor:
    out = _empty(*x_SBCHW.shape[:3], *grid_SBhw2.shape[2:4])
    call("sample", x_SBCHW, grid_SBhw2, out, *_how(x_SBCHW, grid_SBhw2, border, align_corners))
    return out


@torch.library.custom_op("stn::sample_last_gradients", mutates_args=())
def _gradients(
    grad_SBChw: Tensor, x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool
) -> tuple[Tensor, Tensor]:
    grad_BhwSC = grad_SBChw.permute(1, 3, 4, 0, 2).contiguous()
    to_image, to_grid = _empty(*x_SBCHW.shape).zero_(), torch.empty_like(grid_SBhw2)
    how = _how(x_SBCHW, grid_SBhw2, border, align_corners)
    call("sample_gradient", grad_BhwSC, x_SBCHW, grid_SBhw2, to_image, to_grid, *how)
    return to_image, to_grid


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.how = inputs[2:]


@once_differentiable
def _differentiate(ctx: Any, grad_SBChw: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(grad_SBChw, *ctx.saved_tensors, *ctx.how), None, None


_sample.register_autograd(_differentiate, setup_context=_keep)
_sample.register_fake(lambda x, grid, *how: x.new_empty(*x.shape[:3], *grid.shape[2:4]))
_gradients.register_fake(lambda grad, x, grid, *how: (x.new_empty(x.shape), grid.new_empty(grid.shape)))


def sample(x_SBCHW: Tensor, grid_SBhw2: Tensor, border: bool, align_corners: bool) -> Tensor:
    """Return bilinear samples, in memory as the maps are; outside are zeros or the border's pixels."""
    return _sample(x_SBCHW, grid_SBhw2.contiguous(), border, align_corners)


@torch.library.custom_op("stn::resample", mutates_args=())
def _resample(dark_MChw: Tensor, x_MHW: Tensor, y_MHW: Tensor) -> Tensor:
    M, C, h, w = dark_MChw.shape
    out = torch.empty(M, C, *x_MHW.shape[1:])
    call("resample", dark_MChw, x_MHW, y_MHW, out, M, C, h - 3, w - 3, math.prod(x_MHW.shape[1:]))
    return out


_resample.register_fake(lambda dark, x, y: dark.new_empty(*dark.shape[:2], *x.shape[1:]))


def resample(dark_MChw: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample images with black pixels around, one before and two after, as stn.data.geometry does."""
    size = len(dark_MChw), *torch.broadcast_shapes(x.shape, y.shape)[1:]
    return _resample(dark_MChw, *(p.expand(size).contiguous() for p in (x, y)))
