"""The order of feature maps in memory.

Maps are [B, S * C, H, W] in memory (channels last on a CPU), so that a convolution of every seed is one grouped
convolution, and pooling and batch norm see more channels. Norms of few channels leave them with the pixels of a channel
side by side, and wide convolutions keep that. S seed, B batch, C channel, H, W.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # type: ignore[import-not-found]
from torch.autograd.forward_ad import unpack_dual
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stn.multiseed.stacked import Stacked, for_seeds

WIDE = 16
"""Channels from which a convolution is as fast without channels last, the order that norms leave."""


def wants_channels_last(x: Tensor) -> bool:
    """Whether maps are kept channels last: on a CPU 1.2 to 1.5 times faster, max-pooling 7 to 16 times."""
    return x.device.type == "cpu" and x.dtype != torch.float64


def in_functorch(*tensors: Tensor) -> bool:
    """Whether functorch follows what happens to tensors, or they carry a forward derivative."""
    return any(is_functorch_wrapped_tensor(x) or unpack_dual(x).tangent is not None for x in tensors)


def in_other_hands(*tensors: Tensor) -> bool:
    """Whether a compiler or functorch follows what happens to tensors, or they carry a forward derivative."""
    return in_functorch(*tensors) or get_proxy_mode() is not None


class _InOrder(torch.autograd.Function):
    """A copy with the axes in this order in memory, whose gradient has the order of the original.

    With mixed orders the gradient of a ReLU or GELU takes more than 10 times longer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:  # type: ignore[override]
        ctx.size, ctx.strides = x.shape, x.stride()
        return x.permute(axes).contiguous().permute([axes.index(axis) for axis in range(len(axes))])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if grad.stride() == ctx.strides:
            return grad, None
        return grad.new_empty_strided(ctx.size, ctx.strides).copy_(grad), None


def _memory_order(x: Tensor) -> list[int]:
    return sorted(range(x.dim()), key=lambda axis: -x.stride(axis))


def in_order(x: Tensor, *axes: int) -> Tensor:
    if x.permute(axes).is_contiguous():
        return x
    if x.permute(_memory_order(x)).is_contiguous():
        return _InOrder.apply(x, axes)
    return x.permute(axes).contiguous().permute([axes.index(axis) for axis in range(len(axes))])


def reshaped(x: Tensor, *sizes: int) -> Tensor:
    """Return x in this shape; where that takes a copy, the gradient has x's order in memory."""
    if not x.requires_grad or in_other_hands(x):
        return x.reshape(sizes)
    try:
        return x.view(sizes)
    except RuntimeError:  # the sizes do not fit its strides
        return in_order(x, *range(x.dim())).view(sizes)


def in_format(x_BCHW: Tensor, last: bool) -> Tensor:
    """Return maps with channels last or not; of a single row a copy, whose own stride may be any.

    With another one than the usual PyTorch's gradients of convolutions and batch norms are wrong.
    """
    memory_format = torch.channels_last if last else torch.contiguous_format
    copied = x_BCHW.clone if len(x_BCHW) == 1 else x_BCHW.contiguous
    return copied(memory_format=memory_format)


def channels_of(x_SBCHW: Tensor) -> Tensor:
    """Return maps as [B, S * C, H, W]: a view if another layer has made them, else a copy."""
    if last := wants_channels_last(x_SBCHW):
        x_SBCHW = in_order(x_SBCHW, 1, 3, 4, 0, 2)
    x_BDHW = x_SBCHW.transpose(0, 1).flatten(1, 2)
    return in_format(x_BDHW, last) if len(x_BDHW) == 1 else x_BDHW


def side_by_side(x: Tensor) -> Tensor:
    """Return [S, B, C, ...] as [B, S * C, ...]."""
    return channels_of(x) if x.dim() == 5 else x.transpose(0, 1).flatten(1, 2)


def flatten_seeds(x: Tensor | None, S: int) -> Tensor | None:
    return None if x is None else for_seeds(x, S).flatten(0, 1)


def split_seeds(x_BDHW: Tensor, S: int) -> Stacked:
    return Stacked(x_BDHW.unflatten(1, (S, -1)).transpose(0, 1))


def in_memory_order(function: Callable[..., Tensor], *every: Tensor) -> Tensor:
    """Call a function with tensors whose axes are permuted to memory order, and with that order; undo it in the result.

    Feature maps are channels last in memory: copied as they are 0.2 ms for 6 MB, transposed 1.7 (one core).
    """
    axes = _memory_order(every[0])
    if not every[0].permute(axes).is_contiguous():
        axes.sort()
    out = function(*(x.permute(axes) for x in every), axes)
    return out.permute([axes.index(axis) for axis in range(len(axes))])
