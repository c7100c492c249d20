"""Max-pooling of 2x2 squares on a CPU, with places of one byte and a backward pass that writes once.

B batch, D channel, H x W map.
"""

from typing import Any

import torch
from torch import Tensor

from stn.models.kernels.compiled import VECTOR, call, fits
from stn.models.kernels.operators import operator

_LAST = torch.channels_last


def has_kernel(x: Tensor, k: int) -> bool:
    squares = k == 2 and x.dim() == 4 and min(x.shape[2:]) > 1 and x.shape[1] % VECTOR == 0
    return squares and x.is_contiguous(memory_format=_LAST) and fits(x)


def at_places(x_BDHW: Tensor, place_BDhw: Tensor, k: int) -> Tensor:
    """Return the pixel at the place in each square of k x k."""
    place = place_BDhw.long()
    y, x = (torch.arange(n, device=place.device) * k for n in place.shape[2:])
    index = (y[:, None] + place // k) * x_BDHW.shape[3] + x + place % k
    return x_BDHW.flatten(2).gather(2, index.flatten(2)).view(place.shape)


def _maps(like: Tensor, H: int, W: int, dtype: torch.dtype) -> Tensor:
    size = *like.shape[:2], H, W
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=_LAST)


def _results(x_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    h, w = (n // 2 for n in x_BDHW.shape[2:])
    return _maps(x_BDHW, h, w, x_BDHW.dtype), _maps(x_BDHW, h, w, torch.int8)


@operator("max_pool_last(Tensor x) -> (Tensor, Tensor)", _results)
def places(x_BDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps, and the places of their pixels in the squares of 2x2."""
    B, D, H, W = x_BDHW.shape
    out, place = _results(x_BDHW)
    call("max_pool", x_BDHW, out, place, B, H, W, D)
    return out, place


@operator(
    "max_pool_last_gradient(Tensor grad, Tensor place, int H, int W) -> Tensor",
    lambda grad, place, H, W: _maps(grad, H, W, grad.dtype),
)
def _put(grad_BDhw: Tensor, place_BDhw: Tensor, H: int, W: int) -> Tensor:
    """Return maps of zeros with the gradient at the places."""
    B, D = grad_BDhw.shape[:2]
    out = _maps(grad_BDhw, H, W, grad_BDhw.dtype)
    grad_BDhw, place_BDhw = (tensor.contiguous(memory_format=_LAST) for tensor in (grad_BDhw, place_BDhw))
    call("max_pool_gradient", grad_BDhw, place_BDhw, out, B, H, W, D)
    return out


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BDHW: Tensor) -> Tensor:  # type: ignore[override]
        out, place = places(x_BDHW)
        ctx.size = x_BDHW.shape[2:]
        ctx.save_for_backward(place)
        return out

    @staticmethod
    def backward(ctx: Any, grad_BDhw: Tensor) -> Tensor:  # type: ignore[override]
        return put(grad_BDhw, *ctx.saved_tensors, *ctx.size)


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_BDhw: Tensor, place_BDhw: Tensor, H: int, W: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(place_BDhw)
        return _put(grad_BDhw, place_BDhw, H, W)

    @staticmethod
    def backward(ctx: Any, grad_BDHW: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return at_places(grad_BDHW, ctx.saved_tensors[0], 2), None, None, None


def put(grad_BDhw: Tensor, place_BDhw: Tensor, H: int, W: int) -> Tensor:
    """Return maps of zeros with the gradient at the places; it can be differentiated."""
    return _Put.apply(grad_BDhw, place_BDhw, H, W)


def max_pool(x_BDHW: Tensor) -> Tensor:
    """Return the largest pixel of each square of 2x2; what is left over at the edges is left out."""
    return _MaxPool.apply(x_BDHW)
